"""Queues: how many units wait for which stage.

A unit moves through the stages in one direction. One that is done again, since its worker or its
block was lost, stays as far as it has been: it is a retry, and no second unit.
"""

from collections import Counter
from collections.abc import Mapping

STAGES = ("source", "prepare", "embed", "sink")
"""In order."""


class Queues:
    """Where the units of a run are."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._pools: dict[str, str] = {}
        self._steps: dict[str, int] = {}
        self._at: Counter[tuple[str, int]] = Counter()

    def expect(self, pool: str, units: Mapping[str, int]) -> None:
        """These units, by key, are for a pool; they wait to be read."""
        self._names.add(pool)
        for unit in units:
            if unit not in self._pools:
                self._pools[unit], self._steps[unit] = pool, 0
                self._at[pool, 0] += 1

    def pool(self, unit: str) -> str:
        """The pool that a unit is for; empty when nobody has said so."""
        return self._pools.get(unit, "")

    def begin(self, stage: str, unit: str) -> None:
        """A stage of a unit is begun."""
        self._advance(stage, unit, 1)

    def end(self, stage: str, unit: str) -> None:
        """A stage of a unit has ended."""
        self._advance(stage, unit, 2)

    def waiting(self) -> dict[tuple[str, str], int]:
        """Units that wait, by pool and stage; of every pool and stage that there is."""
        return {
            (pool, stage): self._at[pool, 2 * at]
            for pool in sorted(self._names)
            for at, stage in enumerate(STAGES)
        }

    def _advance(self, stage: str, unit: str, step: int) -> None:
        if stage not in STAGES or unit not in self._steps:
            return
        to, before = 2 * STAGES.index(stage) + step, self._steps[unit]
        if to > before:
            self._steps[unit] = to
            self._at[self._pools[unit], before] -= 1
            self._at[self._pools[unit], to] += 1
