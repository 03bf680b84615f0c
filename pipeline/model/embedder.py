"""The door of the model room for a library's user: texts and images in, vectors out.

An `Embedder` is a `Processor`, which prepares items on the CPU, before an `Engine`, which runs the
network on its device.
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipeline.model.checkpoint import open_checkpoint
from pipeline.model.engine import Engine
from pipeline.model.outputs import Embeddings
from pipeline.model.processor import PreparedItem, Processor
from pipeline.tasks import task_named

Item = str | bytes | Image.Image
"""A text, an encoded image, or a decoded one."""


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
        token_budget: int | None = None,
    ) -> "Embedder":
        """Load a checkpoint with the adapter of a task.

        Args:
            path: a local directory, or a hub id.
            task: one of the five public tasks, or `ADAPTER.query` or `ADAPTER.passage`.
            device: a torch device, or auto.
            dtype: auto, float32 or bfloat16.
            max_length: tokens a text is cut to, prefix included; None for 32768.
            max_pixels: bound of a resized image; None for the checkpoint's own.
            token_budget: tokens and image patches of one forward pass; None to measure it.

        Raises:
            CheckpointError: the checkpoint is missing, incomplete or not of the official layout.
            SpecError: no such task or dtype, or max_pixels is too small.
        """
        checkpoint = open_checkpoint(path)
        processor = Processor(checkpoint, max_length=max_length, max_pixels=max_pixels)
        adapter = task_named(task).adapter
        engine = Engine(checkpoint, adapter, device=device, dtype=dtype, token_budget=token_budget)
        return cls(processor, engine, task)

    def embed(
        self,
        items: Sequence[Item],
        dim: int | Sequence[int] | None = None,
        multi: bool = False,
    ) -> Embeddings:
        """Embed texts and images, in any mixture; the order is kept.

        Args:
            items: texts, PIL images, or encoded image bytes.
            dim: size of the single vectors, of matryoshka_dims, or several from the one pass; None
                for the full size.
            multi: whether to make the multi-vectors too.

        Raises:
            RowError: an item is empty, cannot be decoded, or does not fit the device's memory.
            SpecError: a size is not one of the checkpoint's.
        """
        if isinstance(items, str | bytes):
            raise TypeError("items must be a list of texts and images, not one of them")
        prepared = [self._prepare(item) for item in items]
        dims = [dim] if isinstance(dim, int) else dim
        found = self._engine.embed(prepared, dims=dims, multi=multi)
        for fault in found.faults.values():
            raise fault
        return found

    def _prepare(self, item: Item) -> PreparedItem:
        if isinstance(item, str):
            return self._processor.text(item, self._task)
        if isinstance(item, bytes | Image.Image):
            return self._processor.image(item)
        raise TypeError(f"an item is a str, bytes or a PIL image, not {type(item).__name__}")
