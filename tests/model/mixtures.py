"""Texts and images of random sizes among one another; needs neither fixtures nor a cluster."""

import numpy as np

from pipeline.model.checkpoint import Checkpoint
from pipeline.model.processor import PreparedItem, Processor


def mixture(
    checkpoint: Checkpoint,
    seed: int,
    count: int,
    *,
    every: int,
    tokens: tuple[int, int],
    sides: tuple[int, int],
) -> list[PreparedItem]:
    """Random items, every so-manieth an image.

    Args:
        checkpoint: they are prepared for.
        seed: equal seeds give equal items.
        count: how many.
        every: which are images.
        tokens: fewest of a text, and one more than the most.
        sides: of an image in multiples of 28 pixels, likewise.
    """
    generator = np.random.default_rng(seed)
    processor = Processor(checkpoint)
    items = []
    for at in range(count):
        if at % every == every - 1:
            height, width = (int(side) * 28 for side in generator.integers(*sides, size=2))
            pixels = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
            items.append(processor.resized(pixels))
        else:
            ids = generator.integers(50, size=generator.integers(*tokens), dtype=np.int32)
            items.append(PreparedItem(token_ids=ids, pixels=None, truncated=False))
    return items
