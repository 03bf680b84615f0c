"""What the engine is measured on: texts of fixed and of mixed lengths, and document pages.

Token ids and pixels are random: the network's speed does not depend on their values.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.model.checkpoint import Checkpoint
from pipeline.model.images import fit
from pipeline.model.processor import PreparedItem, Processor, random_text

LOGNORMAL = {"median": 200, "sigma": 1.0, "least": 16, "most": 2048}
"""Lengths of the mixed texts, in tokens: what passages of a corpus look like."""
PAGE = (2200, 1700)
"""Height and width of a page as scanned: US letter at 200 dots per inch."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """A kind of input."""

    name: str
    """For tables."""
    draw: Callable[[np.random.Generator], PreparedItem]
    """One item."""

    def items(self, seed: int = 0) -> Iterator[PreparedItem]:
        """Items without end, the same for the same seed."""
        generator = np.random.default_rng(seed)
        while True:
            yield self.draw(generator)


def mixes_for(checkpoint: Checkpoint) -> tuple[Mix, ...]:
    """The mixes, in the order of the table."""

    def mixed(generator: np.random.Generator) -> PreparedItem:
        drawn = generator.lognormal(np.log(LOGNORMAL["median"]), LOGNORMAL["sigma"])
        length = int(np.clip(drawn, LOGNORMAL["least"], LOGNORMAL["most"]))
        return random_text(checkpoint, length, generator)

    processor = Processor(checkpoint)
    height, width = fit(*PAGE, processor.bounds)

    def page(generator: np.random.Generator) -> PreparedItem:
        return processor.resized(generator.integers(256, size=(height, width, 3), dtype=np.uint8))

    fixed = tuple(
        Mix(name=f"texts of {length} tokens", draw=partial(random_text, checkpoint, length))
        for length in (128, 512, 2048)
    )
    return (
        *fixed,
        Mix(name="texts of 16 to 2048 tokens, log-normal", draw=mixed),
        Mix(name=f"pages of {width} x {height} pixels", draw=page),
    )
