"""Batches: which pairs a step looks at, from the seed and the number of the step alone.

So a training that goes on after a kill sees what it would have seen. Each entry of pairs is drawn
with its weight, and its pairs come in an order that is new in every round; a step of several
entries takes an even share of each.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_SOURCES, _ORDER = 0, 1
"""What a generator is for."""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The plan of a training."""

    seed: int
    """The same one gives the same batches."""
    steps: int
    """How many there are."""
    pairs: int
    """Of each step."""
    sources: int
    """Entries that one step is drawn from."""
    sizes: tuple[int, ...]
    """Pairs of each entry."""
    weights: tuple[float, ...]
    """How often each entry is drawn."""

    def of(self, step: int) -> list[tuple[int, NDArray[np.int64]]]:
        """For each entry that a step is drawn from, its number and the numbers of its pairs."""
        chosen = self._chosen[step]
        shares = [len(part) for part in np.array_split(np.arange(self.pairs), len(chosen))]
        return [
            (int(source), self._drawn(int(source), self._drawn_before[step, source], share))
            for source, share in zip(chosen, shares, strict=True)
        ]

    @cached_property
    def _chosen(self) -> NDArray[np.int64]:
        """The entries of each step, [steps, sources]."""
        generator = np.random.default_rng([self.seed, _SOURCES])
        shares = np.array(self.weights) / sum(self.weights)
        drawn = [
            np.sort(generator.choice(len(shares), self.sources, replace=False, p=shares))
            for _ in range(self.steps)
        ]
        return np.array(drawn)

    @cached_property
    def _drawn_before(self) -> NDArray[np.int64]:
        """How many pairs of each entry were drawn before each step, [steps, entries]."""
        shares = [len(part) for part in np.array_split(np.arange(self.pairs), self.sources)]
        counts = np.zeros((self.steps + 1, len(self.sizes)), np.int64)
        for step, chosen in enumerate(self._chosen):
            counts[step + 1, chosen] = shares
        return counts.cumsum(axis=0)[:-1]

    def _drawn(self, source: int, first: int, count: int) -> NDArray[np.int64]:
        size = self.sizes[source]
        numbers = np.arange(first, first + count)
        orders = {
            number: self._order(source, number) for number in np.unique(numbers // size).tolist()
        }
        return np.array([orders[number // size][number % size] for number in numbers], np.int64)

    def _order(self, source: int, turn: int) -> NDArray[np.int64]:
        generator = np.random.default_rng([self.seed, _ORDER, source, turn])
        return generator.permutation(self.sizes[source])
