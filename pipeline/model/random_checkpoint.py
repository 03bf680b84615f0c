"""Random weights in the file layout of the official jina-embeddings-v4 checkpoint.

Tests, examples and throughput measurements need a model but not its knowledge, and the real weights
have a non-commercial licence: so we write our own.

TINY is 1 MB and takes 0.2 s. FULL has the real geometry: 3.75 B parameters, 8 GB, about a minute.
All of it is visible in the model's output: activations stay near 1, no bias is zero, and every
adapter moves its projection by half of the projection's own size (times alpha / rank).
"""

import math
from pathlib import Path

from pipeline.model.geometry import Geometry
from pipeline.model.layout import Shape
from pipeline.model.new_checkpoint import write_new_checkpoint
from pipeline.model.new_tokenizer import train_tokenizer


def write_random_checkpoint(directory: Path, geometry: Geometry, *, seed: int = 0) -> None:
    """Write a whole checkpoint.

    Raises:
        CheckpointError: `directory` exists and is not an empty directory.
    """
    tokenizer = train_tokenizer(geometry.vocabulary)
    write_new_checkpoint(directory, geometry, tokenizer, _distribution, seed=seed)


def _distribution(name: str, shape: Shape) -> tuple[float, float]:
    """Mean and deviation that keep activations near 1 and every tensor visible in the output."""
    if name.endswith(".bias"):
        return 0.0, 0.2
    if len(shape) == 1:  # a norm
        return 1.0, 0.1
    if name.endswith("embed_tokens.weight"):
        return 0.0, 1.0
    gain = 0.5 if ".lora_B." in name else 1.0
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))
