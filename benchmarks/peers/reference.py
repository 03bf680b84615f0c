"""jina-embeddings-v4's own way to embed a list: `encode_text` and `encode_image`.

What is kept of the published code, since it decides the cost: batches of 8 in the order of arrival,
padded to the longest; LoRA beside every linear; all hidden states kept; lm_head over every token,
thrown away; pooling and projector both computed in each pass and one of them returned, so that both
outputs take two passes; bf16 weights under autocast where bf16 is asked for. Its PyTorch attention
is SDPA, as here.

What is left out is to its advantage: no data loader, no progress bar, no pixels padded to the
batch's largest image. The image processor is torchvision's in the original; its antialiased bicubic
is torch's own kernel, which is called here directly.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from benchmarks.peers.official import OfficialModel, load_official, read_json
from benchmarks.setting import ADAPTER, PREFIX
from pipeline.model.images import PixelBounds, fit

BATCH = 8
"""The default of both calls."""

_MAX_LENGTH = 32768
_IMAGE_PROMPT = (
    "<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>Describe the image.<|im_end|>\n"
)
_PAD = "<|image_pad|>"

Item = TypeVar("Item")
Vectors = list[NDArray[np.float32]]


class ReferenceWay:
    """The model of one checkpoint, used as its authors use it."""

    def __init__(self, directory: Path, dtype: torch.dtype, device: str = "cpu") -> None:
        peft_model = load_official(directory, ADAPTER, dtype).to(device)
        self.model: OfficialModel = peft_model.base_model.model
        self._dtype = dtype
        self._device = torch.device(device)
        self._tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(directory / "tokenizer.json"), pad_token="<|endoftext|>"
        )
        self._pixels = read_json(directory / "preprocessor_config.json")

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], *, multi: bool) -> Vectors:
        """One kind of vector for each text: single, or multi."""
        found: Vectors = []
        for batch in _batches(texts):
            inputs = self._tokenizer(
                [PREFIX + text for text in batch],
                return_tensors="pt",
                padding="longest",
                truncation=True,
                max_length=_MAX_LENGTH,
            ).to(self._device)
            mask_BT = inputs["attention_mask"]
            positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
            with self._autocast():
                hidden_BTH = self._hidden(
                    input_ids=inputs["input_ids"],
                    attention_mask=mask_BT,
                    position_ids=positions_BT.expand(3, -1, -1),
                )
                found += self._vectors(hidden_BTH, mask_BT, mask_BT, multi)
        return found

    @torch.no_grad()
    def encode_image(self, images: Sequence[bytes], *, multi: bool) -> Vectors:
        """One kind of vector for each encoded image: single, or multi."""
        found: Vectors = []
        for batch in _batches(images):
            pixels, grids = zip(*(self._pixel_values(image) for image in batch), strict=True)
            grid_B3 = torch.tensor(grids, device=self._device)
            inputs = self._tokenizer(
                [self._prompt(grid) for grid in grids], return_tensors="pt", padding="longest"
            ).to(self._device)
            ids_BT, mask_BT = inputs["input_ids"], inputs["attention_mask"]
            pad = self._tokenizer.convert_tokens_to_ids(_PAD)
            positions_3BT, _ = self.model.model.get_rope_index(
                ids_BT,
                (ids_BT == pad).int(),
                image_grid_thw=grid_B3,
                attention_mask=mask_BT,
            )
            with self._autocast():
                hidden_BTH = self._hidden(
                    input_ids=ids_BT,
                    attention_mask=mask_BT,
                    position_ids=positions_3BT,
                    pixel_values=torch.cat(pixels).to(self._device),
                    image_grid_thw=grid_B3,
                )
                found += self._vectors(hidden_BTH, mask_BT, self._image_span(ids_BT), multi)
        return found

    def _hidden(self, **inputs: Tensor) -> Tensor:
        # the logits of every token are computed in here, and dropped
        output = self.model(**inputs, output_hidden_states=True, use_cache=False)
        last: Tensor = output.hidden_states[-1]
        return last

    def _vectors(
        self, hidden_BTH: Tensor, mask_BT: Tensor, span_BT: Tensor, multi: bool
    ) -> Vectors:
        weights_BT1 = span_BT[..., None]
        single_BH = (hidden_BTH * weights_BT1).sum(1) / weights_BT1.sum(1)
        single_BH = nn.functional.normalize(single_BH, dim=-1)
        multi_BTD = nn.functional.normalize(self.model.multi_vector_projector(hidden_BTH), dim=-1)
        if not multi:
            return list(single_BH.float().cpu().numpy())
        pairs = zip(multi_BTD, mask_BT.bool(), strict=True)
        return [vectors_TD[mask_T].float().cpu().numpy() for vectors_TD, mask_T in pairs]

    def _image_span(self, ids_BT: Tensor) -> Tensor:
        """1 from vision_start to vision_end, both included."""
        start = ids_BT == self._tokenizer.convert_tokens_to_ids("<|vision_start|>")
        end = ids_BT == self._tokenizer.convert_tokens_to_ids("<|vision_end|>")
        return start.cumsum(-1) - end.cumsum(-1) + end.int()

    def _prompt(self, grid: tuple[int, int, int]) -> str:
        merged = math.prod(grid) // self._pixels["merge_size"] ** 2
        return _IMAGE_PROMPT.format(pads=_PAD * merged)

    def _pixel_values(self, image: bytes) -> tuple[Tensor, tuple[int, int, int]]:
        """Normalised patches [P, 3 * 2 * 14 * 14] and the grid of patches (1, rows, columns)."""
        settings = self._pixels
        patch, merge = settings["patch_size"], settings["merge_size"]
        decoded = np.array(Image.open(io.BytesIO(image)).convert("RGB"))
        bounds = PixelBounds(
            factor=patch * merge, least=settings["min_pixels"], most=settings["max_pixels"]
        )
        size = fit(decoded.shape[0], decoded.shape[1], bounds)
        pixels_1CHW = torch.from_numpy(decoded).permute(2, 0, 1)[None]
        resized = nn.functional.interpolate(
            pixels_1CHW, size, mode="bicubic", antialias=True, align_corners=False
        )[0]
        mean = torch.tensor(settings["image_mean"])[:, None, None] * 255
        deviation = torch.tensor(settings["image_std"])[:, None, None] * 255
        values_CHW = (resized.float() - mean) / deviation
        rows, columns = size[0] // patch, size[1] // patch
        blocks = values_CHW.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
        patches = blocks.permute(1, 4, 2, 5, 0, 3, 6)  # blocks of 2 x 2 patches stay together
        frames = patches[:, :, :, :, :, None].expand(
            -1, -1, -1, -1, -1, settings["temporal_patch_size"], -1, -1
        )
        return frames.reshape(rows * columns, -1), (1, rows, columns)

    def _autocast(self) -> AbstractContextManager[object]:
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
