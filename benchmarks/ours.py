"""Our own model, called in one place: if its interface changes, this is what follows.

Texts and pages go in as a user gives them, so tokenising, decoding and resizing are in every time.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.setting import ADAPTER, TASK, Options
from pipeline.model.checkpoint import open_checkpoint
from pipeline.model.embedder import Embedder, Embeddings
from pipeline.model.engine import Engine
from pipeline.model.processor import Processor


class Ours:
    """An `Embedder` on the CPU."""

    def __init__(self, directory: Path, options: Options, *, compiled: bool = False) -> None:
        checkpoint = open_checkpoint(directory)
        engine = Engine(checkpoint, ADAPTER, device="cpu", dtype=options.dtype, compiled=compiled)
        self._embedder = Embedder(Processor(checkpoint), engine, TASK)

    def embed(self, items: Sequence[str | bytes], *, multi: bool) -> Embeddings:
        """Both outputs come from one pass when `multi` is asked for."""
        return self._embedder.embed(items, multi=multi)


def load_engine(directory: Path, options: Options, adapter: str = ADAPTER) -> Engine:
    """The device half alone, its checkpoint opened anew."""
    return Engine(open_checkpoint(directory), adapter, device="cpu", dtype=options.dtype)
