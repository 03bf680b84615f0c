"""The device half of the model room: prepared items in, vectors out.

An actor that hosts an engine runs no tokenizer and no image decoder. Items are packed to the token
budget; while the device works on one pack the next is assembled and copied to it, and the vectors
of the one before are copied back. One forward pass gives all outputs: single vectors at every size
asked for, and multi-vectors.

A pack that does not fit the device's memory is halved, and so is the budget from then on; an item
that does not fit alone is given up with a reason, and its neighbours do not notice.

Legend: B items, T tokens of a pack, D size of a vector of a multi-vector.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import Reason, RowError
from pipeline.model.attention import choose_kernel
from pipeline.model.backbone import Backbone
from pipeline.model.budget import SMALLEST, TokenBudget
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.device import (
    is_out_of_memory,
    name_of,
    pick_device,
    pick_dtype,
    release_memory,
)
from pipeline.model.meter import Meter
from pipeline.model.outputs import VECTOR_DTYPES, Embeddings, Outputs
from pipeline.model.packing import pack
from pipeline.model.pooling import cut, multi_vectors, single_vectors
from pipeline.model.processor import PreparedItem, random_text
from pipeline.model.staging import Courier, Pack, Stager

_PROBE_TEXT = 512
"""Tokens of each text of the packs with which the budget is measured."""


Landing = Callable[[], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class _Flight:
    """A pack whose vectors are on their way back."""

    chosen: list[int]
    lengths: tuple[int, ...]
    singles: dict[int, Landing]
    multi: Landing | None


class Engine:
    """The network on its device, fed with prepared items. Not for several threads at once."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        adapter: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        token_budget: int | None = None,
        compiled: bool | None = None,
        attention: str = "auto",
    ) -> None:
        """Load the weights with one adapter merged.

        Args:
            checkpoint: opened.
            adapter: name of the adapter.
            device: a torch device, or auto: CUDA when there is one, else the CPU.
            dtype: float32, bfloat16, or auto: bfloat16 on CUDA, float32 on a CPU.
            token_budget: tokens and image patches of one forward pass; None to measure it.
            compiled: whether to compile the layers; None for yes on CUDA where the kernel allows.
            attention: the kernel, or auto: see `pipeline.model.attention`.

        Raises:
            CheckpointError: no such adapter, or a tensor cannot be read.
            SpecError: no such dtype or kernel, or no CUDA device where one is asked for.
        """
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        kernel = choose_kernel(attention, self.device, self.dtype)
        by_default = self.device.type == "cuda" and kernel.compiles
        self.compiled = by_default if compiled is None else compiled
        self.attention = kernel.name
        self.meter = Meter(device=self.device)
        self.backbone = Backbone(
            checkpoint,
            adapter,
            kernel,
            device=self.device,
            dtype=self.dtype,
            compiled=self.compiled,
        )
        self._checkpoint = checkpoint
        self._courier = Courier(self.device)
        self._stager = Stager(
            checkpoint, self.backbone.patches, self._courier, bounds_on_host=kernel.bounds_on_host
        )
        how = f"{self.dtype}, {kernel.name}, {'compiled' if self.compiled else 'eager'}"
        key = f"{name_of(self.device)}, torch {torch.__version__}, {how}, {_size(checkpoint)}"
        self._budget = TokenBudget(key, self.device, token_budget)

    @property
    def token_budget(self) -> int:
        """Tokens and image patches of one forward pass; measured when it is first asked for."""
        return self._budget.tokens(self._probe)

    def warm_up(self) -> None:
        """Find the budget and compile the layers now, so that the first items need not wait."""
        if self._budget.is_known and self.compiled:
            self._probe(SMALLEST)
        self._budget.tokens(self._probe)

    def cost(self, item: PreparedItem) -> int:
        """Tokens and image patches of an item: what the budget counts."""
        return self._stager.cost(item)

    def switch(self, adapter: str) -> None:
        """Merge another adapter into the same base weights."""
        self.backbone.switch(adapter)

    @torch.inference_mode()
    def embed(
        self,
        items: Sequence[PreparedItem],
        *,
        dims: Sequence[int] | None = None,
        multi: bool = False,
        multi_dtype: str = "float32",
    ) -> Embeddings:
        """Embed prepared items in packs.

        Args:
            items: prepared for this checkpoint.
            dims: sizes of the single vectors, of matryoshka_dims; None for the full size, empty
                for no single vectors.
            multi: whether to make the multi-vectors too.
            multi_dtype: what the multi-vectors are rounded to: float32 or float16.

        Raises:
            SpecError: a size is not one of the checkpoint's.
        """
        sizes = (None,) if dims is None else dims
        wanted = Outputs(
            dims=tuple(self._checkpoint.demand_dim(dim) for dim in sizes),
            multi=multi,
            multi_dtype=VECTOR_DTYPES[multi_dtype],
        )
        width = self.backbone.projector_bias_D.shape[0]
        nothing = torch.empty(0, width, dtype=wanted.multi_dtype).numpy()
        singles = {dim: np.zeros((len(items), dim), np.float32) for dim in wanted.dims}
        multis: list[NDArray[np.floating]] = [nothing] * len(items)
        faults: dict[int, RowError] = {}
        for landed in self._flights(items, wanted, faults):
            for dim, landing in landed.singles.items():
                singles[dim][landed.chosen] = landing()
            if landed.multi is not None:
                parts = np.split(landed.multi(), np.cumsum(landed.lengths)[:-1])
                for index, part in zip(landed.chosen, parts, strict=True):
                    multis[index] = part
        self.meter.settle()
        return Embeddings(
            singles=singles,
            multi=multis if multi else None,
            n_tokens=np.array([len(item.token_ids) for item in items], dtype=np.int32),
            truncated=np.array([item.truncated for item in items], dtype=np.bool_),
            faults=faults,
        )

    def _flights(
        self, items: Sequence[PreparedItem], wanted: Outputs, faults: dict[int, RowError]
    ) -> Iterator[_Flight]:
        """Each pack's vectors; the next pack is always under way before the last is waited for."""
        costs = [self.cost(item) for item in items]
        # a call that fits the smallest pack is not worth measuring a budget for
        needs_budget = self._budget.is_known or sum(costs) > SMALLEST
        budget = self.token_budget if needs_budget else SMALLEST
        waiting = deque(pack(costs, budget))
        last: _Flight | None = None
        ahead: Pack | None = None
        while waiting:
            chosen = waiting.popleft()
            flight = self._launch(ahead, items, chosen, wanted)
            ahead = None
            if flight is None:
                if last is not None:
                    yield last
                    last = None
                release_memory(self.device)
                cost = sum(costs[index] for index in chosen)
                if len(chosen) > 1:
                    left = [*chosen, *(index for rest in waiting for index in rest)]
                    packs = pack([costs[index] for index in left], self._budget.lower(cost))
                    waiting = deque([left[at] for at in one] for one in packs)
                    continue
                # with all else given back it may fit after all
                flight = self._launch(None, items, chosen, wanted)
                if flight is None:
                    faults[chosen[0]] = RowError(
                        Reason.OOM,
                        f"its {cost} tokens and image patches do not fit the memory of "
                        f"{name_of(self.device)}",
                    )
                    continue
            if waiting:
                ahead = self._stage(items, waiting[0])
            if last is not None:
                yield last
            last = flight
        if last is not None:
            yield last

    def _launch(
        self,
        staged: Pack | None,
        items: Sequence[PreparedItem],
        chosen: list[int],
        wanted: Outputs,
    ) -> _Flight | None:
        """Start a pack, staged before or not; None when it does not fit the memory."""
        staged = staged or self._stage(items, chosen)
        if staged is None:
            return None
        try:
            self._courier.arrived()
            with self.meter.measure(staged):
                singles, multi_TD = self._vectors(staged, wanted)
            return _Flight(
                chosen=chosen,
                lengths=staged.lengths,
                singles={dim: self._courier.fetch(v) for dim, v in singles.items()},
                multi=None if multi_TD is None else self._courier.fetch(multi_TD),
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _stage(self, items: Sequence[PreparedItem], chosen: list[int]) -> Pack | None:
        """Assemble and send a pack; None when it does not fit the memory now."""
        try:
            return self._stager.stage([items[index] for index in chosen])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _vectors(self, staged: Pack, wanted: Outputs) -> tuple[dict[int, Tensor], Tensor | None]:
        """The forward pass, pooled: single vectors by size, and multi-vectors [T, D]."""
        hidden_TH = self.backbone.forward(staged)
        singles: dict[int, Tensor] = {}
        if wanted.dims:
            single_BH = single_vectors(hidden_TH, staged.lengths_G, staged.spans_B)
            singles = {dim: cut(single_BH, dim) for dim in wanted.dims}
        if not wanted.multi:
            return singles, None
        multi_TD = multi_vectors(
            hidden_TH[: sum(staged.lengths)],
            self.backbone.projector_weight_DH,
            self.backbone.projector_bias_D,
        )
        return singles, multi_TD.to(wanted.multi_dtype)

    @torch.inference_mode()
    def _probe(self, tokens: int) -> None:
        """Run a pack of texts of that many tokens in all, with everything that may be wanted."""
        generator = np.random.default_rng(0)
        items = [
            random_text(self._checkpoint, _PROBE_TEXT, generator)
            for _ in range(tokens // _PROBE_TEXT)
        ]
        staged = self._stager.stage(items)
        self._courier.arrived()
        wanted = Outputs(dims=(self._checkpoint.hidden_size,), multi=True)
        singles, multi_TD = self._vectors(staged, wanted)
        for found in (*singles.values(), multi_TD):
            assert found is not None
            self._courier.fetch(found)()


def _size(checkpoint: Checkpoint) -> str:
    text = checkpoint.text_config
    return f"{text['num_hidden_layers']} x {text['hidden_size']} x {text['intermediate_size']}"
