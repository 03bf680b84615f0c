"""Waves: the units of one run, in as many executions of Ray Data as its driver's memory wants.

Ray Data holds some 27 kB of each unit in the driver until the execution ends. Every execution loads
the model anew, so there are no more of them than that makes needed: a wave has at least as many
units as keep each actor busy for most of an hour.
"""

import math
from collections.abc import Sequence

from pipeline.work import WorkUnit

UNITS, UNITS_OF_ACTOR = 16_384, 256
"""Of a wave at most: whichever is more, for all actors."""


def waves(units: Sequence[WorkUnit], actors: int) -> list[list[WorkUnit]]:
    """Units in waves of even sizes, each with its share of every adapter's, in order."""
    count = math.ceil(len(units) / max(UNITS, actors * UNITS_OF_ACTOR))
    by_adapter: dict[str, list[WorkUnit]] = {}
    for unit in units:
        by_adapter.setdefault(unit.adapter, []).append(unit)

    def share(mine: Sequence[WorkUnit], number: int) -> Sequence[WorkUnit]:
        return mine[len(mine) * number // count : len(mine) * (number + 1) // count]

    return [
        [unit for mine in by_adapter.values() for unit in share(mine, number)]
        for number in range(count)
    ]
