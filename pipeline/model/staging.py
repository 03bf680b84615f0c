"""A pack on its way to the device: assembled on the host, copied while the device is at work.

Everything the forward pass needs to know of its items (positions, bounds, spans, windows) is worked
out here on the host, so the pass itself never waits for the device. On CUDA the copies go through
pinned memory on streams of their own, one for each direction; on a CPU nothing is copied.

Legend: T tokens of a pack, S sequences, G spans and gaps between them, B items, M image pads (one
for each merged patch), N image patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.checkpoint import Checkpoint
from pipeline.model.processor import PreparedItem
from pipeline.model.vision import PatchGeometry

SMALLEST_PACK = 16
"""Below about ten rows a CPU matrix product takes another path and rounds differently."""
CUDA_MULTIPLE = 128
"""Packs are filled up to it there: matrix products come in tiles, and shapes repeat."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a pack."""

    pads_M: Tensor
    """int64: where in the pack their tokens are."""
    pixels: Tensor
    """uint8: of all images, one after another."""
    shapes: tuple[tuple[int, int, int], ...]
    """(height, width, 3) of each."""
    positions_N2: Tensor
    """int64: row and column of each patch in its image."""
    windows_M: Tensor
    """int64: merged patches, window by window."""
    window_bounds: Tensor
    """int32: cumulated patches of the windows, from 0."""
    image_bounds: Tensor
    """int32: cumulated patches of the images, from 0."""
    longest: tuple[int, int]
    """Patches of the largest window, and of the largest image."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """What one forward pass reads."""

    token_ids_T: Tensor
    """int64, of all items, and of the padding at the end."""
    positions_31T: Tensor
    """int64: M-RoPE positions (time, height, width)."""
    bounds: Tensor
    """int32 [S + 1]: cumulated lengths of the sequences, from 0."""
    longest: int
    """Length of the longest sequence."""
    lengths_G: Tensor
    """int64: of the spans that are pooled, and of what lies between them."""
    spans_B: Tensor
    """int64: which of these are an item's span."""
    images: Images | None
    """None for a pack of texts."""
    lengths: tuple[int, ...]
    """Tokens of each item."""
    padding: int
    """Tokens at the end that belong to no item."""


class Courier:
    """Takes arrays to a device and back."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # two, since what comes back waits for its computation and must not hold up what goes there
        self._there, self._back = _stream(device), _stream(device)

    def send(self, array: NDArray[Any]) -> Tensor:
        """An array to the device; `arrived` must come before it is read."""
        return self._sent(torch.from_numpy(array))

    def send_joined(self, arrays: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Arrays, flattened and joined, to the device."""
        size = sum(array.size for array in arrays)
        joined = torch.empty(size, dtype=torch.uint8, pin_memory=self._there is not None)
        np.concatenate([array.reshape(-1) for array in arrays], out=joined.numpy())
        return self._sent(joined)

    def arrived(self) -> None:
        """Let the device's computations wait for what has been sent so far."""
        if self._there is not None:
            torch.cuda.current_stream(self.device).wait_stream(self._there)

    def fetch(self, tensor: Tensor) -> Callable[[], NDArray[Any]]:
        """Start to bring a result back; the call waits for it."""
        if self._back is None:
            return tensor.numpy
        self._back.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._back):
            landed = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            landed.copy_(tensor, non_blocking=True)
            done = self._back.record_event()
        # its memory must not be given to another tensor before the copy is made
        tensor.record_stream(self._back)

        def wait() -> NDArray[Any]:
            done.synchronize()
            return landed.numpy()

        return wait

    def _sent(self, host: Tensor) -> Tensor:
        if self._there is None:
            return host
        pinned = host if host.is_pinned() else host.pin_memory()
        with torch.cuda.stream(self._there):
            sent = pinned.to(self.device, non_blocking=True)
        sent.record_stream(torch.cuda.current_stream(self.device))
        return sent


def _stream(device: torch.device) -> Any:
    """A stream of its own on CUDA, which torch does not type; None elsewhere."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


class Stager:
    """Assembles packs for one checkpoint on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        patches: PatchGeometry,
        courier: Courier,
        *,
        bounds_on_host: bool,
    ) -> None:
        """Make a stager; `bounds_on_host`: where the attention kernel reads them."""
        self._patches = patches
        self._courier = courier
        self._bounds_on_host = bounds_on_host
        self._multiple = CUDA_MULTIPLE if courier.device.type == "cuda" else 1
        self._pad = int(checkpoint.config["image_token_id"])
        self._start = int(checkpoint.config["vision_start_token_id"])
        self._end = int(checkpoint.config["vision_end_token_id"])

    def cost(self, item: PreparedItem) -> int:
        """Tokens and image patches of an item."""
        patches = 0 if item.pixels is None else self._patches.patches(item.pixels)
        return len(item.token_ids) + patches

    def stage(self, items: Sequence[PreparedItem]) -> Pack:
        """Put items together and send them off."""
        lengths = [len(item.token_ids) for item in items]
        total = sum(lengths)
        padded = max(SMALLEST_PACK, -(-total // self._multiple) * self._multiple)
        sequences = lengths if padded == total else [*lengths, padded - total]
        ids_T = np.zeros(padded, np.int64)
        np.concatenate([item.token_ids for item in items], out=ids_T[:total], casting="safe")
        spans, chosen = self._spans(items, padded - total)
        send = self._courier.send
        return Pack(
            token_ids_T=send(ids_T),
            positions_31T=send(self._positions(items, sequences)[:, None]),
            bounds=self._bounds(sequences),
            longest=max(sequences),
            lengths_G=send(spans),
            spans_B=send(chosen),
            images=self._images(items, ids_T),
            lengths=tuple(lengths),
            padding=padded - total,
        )

    def _bounds(self, lengths: Sequence[int] | NDArray[np.int64]) -> Tensor:
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return torch.from_numpy(bounds) if self._bounds_on_host else self._courier.send(bounds)

    def _positions(
        self, items: Sequence[PreparedItem], sequences: Sequence[int]
    ) -> NDArray[np.int64]:
        """M-RoPE positions as `get_rope_index` gives them: [3, T]."""
        starts = np.cumsum([0, *sequences[:-1]])
        positions_T = np.arange(sum(sequences)) - np.repeat(starts, sequences)
        positions_3T = np.tile(positions_T, (3, 1))
        for item, start in zip(items, starts, strict=False):
            if item.pixels is None:
                continue
            rows, columns = (
                side // self._patches.merge for side in self._patches.grid(item.pixels)
            )
            first = int(np.argmax(item.token_ids == self._pad))
            pads = rows * columns
            at = start + first
            # every pad has the time of the first, its row and its column; text goes on after the
            # longer side
            positions_3T[:, at : at + pads] = first
            positions_3T[1:, at : at + pads] += np.divmod(np.arange(pads), columns)
            after = slice(at + pads, start + len(item.token_ids))
            positions_3T[:, after] -= pads - max(rows, columns)
        return positions_3T

    def _spans(
        self, items: Sequence[PreparedItem], padding: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lengths of spans and gaps, and which are spans: a text's is all, an image's its own."""
        lengths: list[int] = []
        chosen: list[int] = []
        for item in items:
            start, stop = 0, len(item.token_ids)
            if item.pixels is not None:
                start = int(np.argmax(item.token_ids == self._start))
                stop = int(np.argmax(item.token_ids == self._end)) + 1
            lengths += [start] if start else []
            chosen.append(len(lengths))
            lengths += [length for length in (stop - start, len(item.token_ids) - stop) if length]
        lengths += [padding] if padding else []
        return np.array(lengths, np.int64), np.array(chosen, np.int64)

    def _images(self, items: Sequence[PreparedItem], ids_T: NDArray[np.int64]) -> Images | None:
        images = [item.pixels for item in items if item.pixels is not None]
        if not images:
            return None
        layout = self._patches.lay_out(images)
        send = self._courier.send
        return Images(
            # a text cannot hold this token: special tokens spelled out in it stay literal text
            pads_M=send(np.flatnonzero(ids_T == self._pad)),
            pixels=self._courier.send_joined(images),
            shapes=tuple(pixels.shape for pixels in images),
            positions_N2=send(layout.positions_N2),
            windows_M=send(layout.windows_M),
            window_bounds=self._bounds(layout.window_lengths),
            image_bounds=self._bounds(layout.image_lengths),
            longest=(int(layout.window_lengths.max()), int(layout.image_lengths.max())),
        )
