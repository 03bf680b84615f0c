"""The door of the model room: items in, vectors out.

`Engine` is the device half: it takes prepared items, so an actor that hosts it runs no tokenizer
and no image decoder. `Embedder` puts a `Processor` before it, for use as a library. Both outputs
come from one forward pass.

Legend: B items, T_i tokens of item i, D size of a vector of a multi-vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import SpecError
from pipeline.model.backbone import Backbone, PatchGeometry
from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.model.packing import pack
from pipeline.model.pooling import cut, multi_vector, single_vector
from pipeline.model.processor import PreparedItem, Processor
from pipeline.tasks import task_named

Item = str | bytes | Image.Image
"""A text, an encoded image, or a decoded one."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOKEN_BUDGET = {"cpu": 8192, "cuda": 16384}
"""Tokens and image patches of one forward pass when no budget is given, by device type."""


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Vectors of a list of items, in its order."""

    single: NDArray[np.float32]
    """[B, dim], L2-normalised."""
    multi: list[NDArray[np.float32]] | None
    """B arrays [T_i, D], each row L2-normalised; None when not asked for."""
    n_tokens: NDArray[np.int32]
    """[B] tokens that were embedded, prompt included."""
    truncated: NDArray[np.bool_]
    """[B] whether the text was cut."""


class Engine:
    """The network on its device, fed with prepared items."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        adapter: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        token_budget: int | None = None,
    ) -> None:
        """Load the weights with one adapter merged.

        Args:
            checkpoint: opened.
            adapter: name of the adapter.
            device: a torch device, or auto: CUDA when there is one, else the CPU.
            dtype: float32, bfloat16, or auto: bfloat16 on CUDA, float32 on a CPU.
            token_budget: tokens and image patches of one forward pass.

        Raises:
            CheckpointError: no such adapter, or a tensor cannot be read.
            SpecError: no such dtype, or no CUDA device where one is asked for.
        """
        self.device = torch.device(_device(device))
        dtype = auto_dtype(device) if dtype == "auto" else dtype
        if dtype not in DTYPES:
            raise SpecError(f"dtype: {dtype!r} is not one of auto, {', '.join(DTYPES)}")
        self.token_budget = token_budget or TOKEN_BUDGET.get(self.device.type, 8192)
        self._checkpoint = checkpoint
        self._backbone = Backbone(checkpoint, adapter, device=self.device, dtype=DTYPES[dtype])
        self._patches = PatchGeometry(checkpoint)
        self._vision_start = int(checkpoint.config["vision_start_token_id"])
        self._vision_end = int(checkpoint.config["vision_end_token_id"])

    def switch(self, adapter: str) -> None:
        """Merge another adapter into the same base weights."""
        self._backbone.switch(adapter)

    @torch.inference_mode()
    def embed(
        self, items: Sequence[PreparedItem], *, dim: int | None = None, multi: bool = False
    ) -> Embeddings:
        """Embed prepared items in packs.

        Args:
            items: prepared for this checkpoint.
            dim: size of the single vectors, one of matryoshka_dims; None for the full size.
            multi: whether to make the multi-vectors too.

        Raises:
            SpecError: dim is not one of the checkpoint's.
        """
        dim = self._checkpoint.demand_dim(dim)
        single = np.empty((len(items), dim), dtype=np.float32)
        multis: list[NDArray[np.float32]] = []
        for run in pack([self._cost(item) for item in items], self.token_budget):
            chosen = items[run.start : run.stop]
            hidden = self._backbone.forward(chosen)
            pooled = [
                single_vector(hidden_TH, self._span(item))
                for item, hidden_TH in zip(chosen, hidden, strict=True)
            ]
            single[run.start : run.stop] = cut(torch.stack(pooled), dim).cpu().numpy()
            if multi:
                weight, bias = self._backbone.projector_weight_DH, self._backbone.projector_bias_D
                multis += [multi_vector(h_TH, weight, bias).cpu().numpy() for h_TH in hidden]
        return Embeddings(
            single=single,
            multi=multis if multi else None,
            n_tokens=np.array([len(item.token_ids) for item in items], dtype=np.int32),
            truncated=np.array([item.truncated for item in items], dtype=np.bool_),
        )

    def _cost(self, item: PreparedItem) -> int:
        patches = 0 if item.pixels is None else self._patches.patches(item.pixels)
        return len(item.token_ids) + patches

    def _span(self, item: PreparedItem) -> slice:
        """The positions whose mean is the single vector: a text's all, an image's own."""
        if item.pixels is None:
            return slice(None)
        start = int(np.argmax(item.token_ids == self._vision_start))
        stop = int(np.argmax(item.token_ids == self._vision_end))
        return slice(start, stop + 1)


class Embedder:
    """jina-embeddings-v4 as a library: one task, texts and images."""

    def __init__(self, processor: Processor, engine: Engine, task: str) -> None:
        self._processor = processor
        self._engine = engine
        self._task = task_named(task)

    @classmethod
    def load(
        cls,
        path: str | Path,
        task: str = "retrieval.passage",
        device: str = "auto",
        dtype: str = "auto",
        max_length: int | None = None,
        max_pixels: int | None = None,
    ) -> "Embedder":
        """Load a checkpoint with the adapter of a task.

        Args:
            path: a local directory, or a hub id.
            task: one of the five public tasks.
            device: a torch device, or auto.
            dtype: auto, float32 or bfloat16.
            max_length: tokens a text is cut to, prefix included; None for 32768.
            max_pixels: bound of a resized image; None for the checkpoint's own.

        Raises:
            CheckpointError: the checkpoint is missing, incomplete or not of the official layout.
            SpecError: no such task or dtype, or max_pixels is too small.
        """
        checkpoint = open_checkpoint(path)
        processor = Processor(checkpoint, max_length=max_length, max_pixels=max_pixels)
        engine = Engine(checkpoint, task_named(task).adapter, device=device, dtype=dtype)
        return cls(processor, engine, task)

    def embed(
        self, items: Sequence[Item], dim: int | None = None, multi: bool = False
    ) -> Embeddings:
        """Embed texts and images, in any mixture; the order is kept.

        Args:
            items: texts, PIL images, or encoded image bytes.
            dim: size of the single vectors, one of matryoshka_dims; None for the full size.
            multi: whether to make the multi-vectors too.

        Raises:
            RowError: an item is empty or cannot be decoded.
            SpecError: dim is not one of the checkpoint's.
        """
        if isinstance(items, str | bytes):
            raise TypeError("items must be a list of texts and images, not one of them")
        return self._engine.embed([self._prepare(item) for item in items], dim=dim, multi=multi)

    def _prepare(self, item: Item) -> PreparedItem:
        if isinstance(item, str):
            return self._processor.text(item, self._task)
        if isinstance(item, bytes | Image.Image):
            return self._processor.image(item)
        raise TypeError(f"an item is a str, bytes or a PIL image, not {type(item).__name__}")


def auto_dtype(device: str) -> str:
    """What `auto` computes in: bfloat16 on CUDA, float32 on a CPU."""
    return "bfloat16" if torch.device(_device(device)).type == "cuda" else "float32"


def _device(device: str) -> str:
    there = torch.cuda.is_available()
    if device.startswith("cuda") and not there:
        # an actor that was given a GPU must not fall back to a CPU in silence
        raise SpecError(
            f"device: {device!r}, but torch {torch.__version__} sees no CUDA device here; install "
            "a CUDA build of torch, or set gpus: 0 for the pools"
        )
    if device == "auto":
        return "cuda" if there else "cpu"
    return device
