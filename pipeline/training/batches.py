"""Batches: which pairs a step looks at, from the seed and the number of the step alone.

So a training that goes on after a kill sees what it would have seen. Each entry of pairs is drawn
with its weight, and its pairs come in an order that is new in every round; a step of several
entries takes an even share of each.

Among pairs that have nothing to do with each other the right answer is soon found, and nothing more
is learnt. Where a teacher has said something of the queries, an order can be one of groups that it
finds alike: the leaves of a random projection tree (Dasgupta and Freund, STOC 2008), another one in
every round, so that a pair's neighbours are others each time.

Legend: N pairs of an entry, D numbers of a teacher's vector.
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
    alike: int = 1
    """Pairs of one group at most; 1 for no groups."""
    taught: tuple[NDArray[np.float32] | None, ...] = ()
    """Of each entry a teacher's vectors [N, D], or None where there is no teacher."""

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
        orders = {turn: self._order(source, turn) for turn in np.unique(numbers // size).tolist()}
        return np.array([orders[number // size][number % size] for number in numbers], np.int64)

    def _order(self, source: int, turn: int) -> NDArray[np.int64]:
        vectors_ND = self.taught[source] if self.alike > 1 else None
        if vectors_ND is None:
            return self._generator(source, turn).permutation(self.sizes[source])
        # trees are costly, and one entry's steps mostly fall into one turn
        if (source, turn) not in self._grown:
            for old in [key for key in self._grown if key[0] == source and key[1] < turn - 1]:
                del self._grown[old]
            generator = self._generator(source, turn)
            self._grown[source, turn] = _in_groups(vectors_ND, self.alike, generator)
        return self._grown[source, turn]

    @cached_property
    def _grown(self) -> dict[tuple[int, int], NDArray[np.int64]]:
        """Orders of groups that were asked for lately, by entry and turn."""
        return {}

    def _generator(self, source: int, turn: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, _ORDER, source, turn])


def _in_groups(
    vectors_ND: NDArray[np.float32], most: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """All rows, those of a group side by side, at most so many in each."""
    groups: list[NDArray[np.int64]] = []
    waiting = [np.arange(len(vectors_ND))]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= most:
            groups.append(rows)
            continue
        one, other = generator.choice(rows, 2, replace=False)
        along_N = vectors_ND[rows] @ (vectors_ND[one] - vectors_ND[other])
        middle = len(rows) // 2
        parted = np.argpartition(along_N, middle)
        waiting += [rows[parted[:middle]], rows[parted[middle:]]]
    return np.concatenate([groups[number] for number in generator.permutation(len(groups))])
