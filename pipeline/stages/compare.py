"""Compare: both sides of a night read and matched, here in one process.

`ray_compare` does the same on a cluster, partition by partition. Both take a recipe and sides, and
give what `pipeline.nightly.compare` makes of them; here all rows are held at once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

import pyarrow as pa

from pipeline.manifest import Part
from pipeline.nightly.base import BASE, base_rows
from pipeline.nightly.compare import SCANNED, Differences, Sides, compare, together
from pipeline.stages.flow import opened_together
from pipeline.stages.recipe import Recipe
from pipeline.work import WorkUnit

Thing = TypeVar("Thing")
NumberedUnit = tuple[int, WorkUnit]
NumberedPart = tuple[int, Part]

_READ_TOGETHER = 1 << 16
"""Rows of the files that one call reads: small files are many, and a call is not free."""


def compare_in_process(recipe: Recipe, sides: Sides) -> Differences:
    """Read both sides and compare them."""
    scanned = map(recipe.scan, segments_of(sides.units))
    read = partial(recipe.in_dataset, partial(base_rows, sides.schema))
    rows = map(read, files_of(sides.parts))
    source = pa.concat_tables([SCANNED.empty_table(), *scanned])
    base = pa.concat_tables([BASE.empty_table(), *rows])
    return together([compare(source, base, keep_gone=sides.keep_gone)])


def segments_of(units: Sequence[NumberedUnit]) -> Iterator[list[NumberedUnit]]:
    """Units that are opened together, with their numbers."""
    left = iter(units)
    for group in opened_together([unit for _, unit in units]):
        yield list(islice(left, len(group)))


def files_of(parts: Sequence[Part]) -> Iterator[list[NumberedPart]]:
    """Parts in groups that one call reads, with their numbers."""
    return gathered(enumerate(parts), lambda part: part[1].file.rows, _READ_TOGETHER)


def gathered(
    things: Iterable[Thing], rows: Callable[[Thing], int], most: int
) -> Iterator[list[Thing]]:
    """Runs of things with about so many rows at most, and one thing at least."""
    held: list[Thing] = []
    count = 0
    for thing in things:
        if held and count + rows(thing) > most:
            yield held
            held, count = [], 0
        held.append(thing)
        count += rows(thing)
    if held:
        yield held
