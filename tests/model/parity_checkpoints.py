"""The two random checkpoints of the parity tests, and engines on them that are loaded once."""

import dataclasses
from functools import cache
from pathlib import Path

from pipeline import Embedder
from pipeline.model.geometry import TINY
from pipeline.model.random_checkpoint import write_random_checkpoint
from tests.model.oracle import Oracle
from tests.model.parity_items import SMALL_MAX_PIXELS

GEOMETRIES = ("tiny", "odd")

ODD = dataclasses.replace(
    TINY,
    hidden=96,
    layers=3,
    heads=3,
    kv_heads=1,
    intermediate=112,
    vision_hidden=48,
    vision_depth=3,
    vision_heads=3,
    vision_intermediate=80,
    full_attention_blocks=(1,),  # so that the last block looks at windows
    rank=4,
    alpha=10,
    min_pixels=8 * 28 * 28,
    max_pixels=50 * 28 * 28,
    matryoshka_dims=(24, 48, 96),
    vocabulary=4096,
)
"""Every size differs from TINY's, alpha is not the rank, and all heads share one key."""


def write_checkpoint(root: Path, name: str) -> Path:
    """Writes one of the two under `root` and returns its directory."""
    directory = root / name
    if name == "tiny":
        write_random_checkpoint(directory, TINY)
    else:
        write_random_checkpoint(directory, ODD, seed=7)
    return directory


@cache
def oracle_of(directory: Path) -> Oracle:
    """The oracle of a directory whose files no longer change."""
    return Oracle(directory)


@cache
def engine_of(
    directory: Path,
    task: str,
    max_pixels: int | None = SMALL_MAX_PIXELS,
    max_length: int | None = None,
) -> Embedder:
    """The engine under test in fp32 on the CPU, on a directory whose files no longer change."""
    return Embedder.load(
        directory,
        task=task,
        device="cpu",
        dtype="float32",
        max_length=max_length,
        max_pixels=max_pixels,
    )
