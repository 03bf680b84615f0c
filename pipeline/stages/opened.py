"""Opened: a checkpoint, wherever a spec says it is, as every host has it."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.copies import Fetched, local_copy
from pipeline.model.checkpoint import Checkpoint, Settings, open_checkpoint, open_settings
from pipeline.spec import JobSpec

if TYPE_CHECKING:
    from pipeline.model.processor import Processor

CACHE = Path("~/.cache/nightjar/checkpoints").expanduser()
"""Copies of checkpoints from object storage, one for each host."""


def open_model(path: str, fetched: Fetched | None = None) -> Checkpoint:
    """Open a checkpoint by the spec's model.path: a directory, an object-store URL or a hub id.

    Args:
        path: as the spec has it.
        fetched: told how long a copy of it took, where there was none here.

    Raises:
        CheckpointError: see `pipeline.model.checkpoint.open_checkpoint`.
        SourceError: there is nothing at the URL.
    """
    return open_checkpoint(local_copy(path, CACHE, fetched) if "://" in path else path)


def open_model_settings(path: str) -> Settings:
    """The same without the weights, which only a device needs: hosts without one copy none.

    Raises:
        CheckpointError: see `pipeline.model.checkpoint.open_settings`.
        SourceError: there is nothing at the URL.
    """
    return open_settings(local_copy(path, CACHE, only=".json") if "://" in path else path)


@cache
def processor_of(
    path: str,
    hashes: tuple[tuple[str, str], ...],
    max_length: int,
    max_pixels: int | None,
    image_pixels: int,
) -> "Processor":
    """Read once in each process. Only the files it reads are held against their hashes."""
    # torch takes seconds to import: workers that compare, link or write do without
    from pipeline.model.processor import Processor

    settings = open_model_settings(path)
    settings.demand_same(dict(hashes))
    return Processor(
        settings, max_length=max_length, max_pixels=max_pixels, image_pixels=image_pixels
    )


def settle_by(spec: JobSpec, checkpoint: Checkpoint) -> JobSpec:
    """The job with what it leaves to the checkpoint written out: null and the value are one."""
    single = spec.output.single
    if single is not None:
        sizes = [checkpoint.demand_dim(dim, "output.single.dim") for dim in single.dims]
        dims = sizes if isinstance(single.dim, list) else sizes[0]
        single = single.model_copy(update={"dim": dims})
    bound = spec.model.max_pixels or checkpoint.pixel_bounds[1]
    return spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"max_pixels": bound}),
            "output": spec.output.model_copy(update={"single": single}),
        }
    )
