"""Compare: items of a source with rows of a snapshot, all of them or those of some names.

Rows of one sign have one name, and what is counted as changed or gone goes by names too. So what is
divided by name can be compared part by part: `compare` takes all there is or one part of it, and
`together` adds up what the parts have come to. What it says grows with what differs, not with what
is there.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.manifest import Part
from pipeline.nightly.base import WHERE
from pipeline.nightly.changes import match
from pipeline.nightly.counts import Counts, count
from pipeline.nightly.signs import SIGNS
from pipeline.work import WorkUnit

ITEM = pa.schema(
    [
        pa.field("unit", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("modality", pa.string()),
        pa.field("siblings", pa.int32()),
    ]
)
"""Number of a unit, a row of its shard, and how many items the unit has in all."""
SCANNED = pa.schema([*ITEM, *SIGNS])
"""Items; a faulty one has no signs."""
TODO = pa.schema([*ITEM, SIGNS.field("content")])


@dataclass(frozen=True, kw_only=True)
class Sides:
    """What is compared."""

    units: Sequence[tuple[int, WorkUnit]]
    """Of the source, with their numbers."""
    parts: Sequence[Part]
    """Of the snapshot; they are numbered as they come."""
    schema: pa.Schema
    """Of the snapshot's rows."""
    keep_gone: bool
    """Whether it matters which rows are gone from the source."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """What a comparison has come to."""

    todo: pa.Table = field(default_factory=TODO.empty_table)
    """Items of the source that no row of the snapshot is of, and the faulty ones: of `TODO`."""
    dead: pa.Table = field(default_factory=WHERE.empty_table)
    """Rows of the snapshot that no item of the source is: of `WHERE`."""
    kept: pa.Table = field(default_factory=WHERE.empty_table)
    """Those of them whose name is gone from the source, where that matters."""
    counts: Counts = field(default_factory=Counts)
    """In numbers."""
    items: int = 0
    """Of the source."""


Compare = Callable[[Sides], Differences]
"""Reads both sides and compares them, here or on a cluster."""


def compare(scanned: pa.Table, rows: pa.Table, *, keep_gone: bool) -> Differences:
    """What differs, whatever order the two come in.

    Args:
        scanned: items of the source, of `SCANNED`.
        rows: of the snapshot, of `BASE`.
        keep_gone: whether it matters which rows are gone from the source.
    """
    items = scanned.num_rows
    is_well = pc.is_valid(scanned["sign"])
    faulty = scanned.filter(pc.invert(is_well))
    well = _in_order(scanned.filter(is_well) if faulty.num_rows else scanned, "row", "unit")
    rows = _in_order(rows, "at", "part")
    matched = match(well["sign"], rows["sign"])
    left = well.filter(pa.array(~matched.source))
    extra = rows.filter(pa.array(~matched.base))
    kept = extra.slice(0, 0)
    if keep_gone:
        named = pc.is_in(extra["name"], well["name"].combine_chunks())
        kept = extra.filter(pc.invert(named))
    return Differences(
        todo=pa.concat_tables([left, faulty]).select(TODO.names),
        dead=extra.select(WHERE.names),
        kept=kept.select(WHERE.names),
        counts=count(left, extra, rows.num_rows - extra.num_rows),
        items=items,
    )


def together(found: Iterable[Differences]) -> Differences:
    """What comparisons of parts have come to, in an order that does not depend on theirs."""
    parts = [Differences(), *found]
    todo = pa.concat_tables(part.todo for part in parts)
    return Differences(
        todo=todo.sort_by([(name, "ascending") for name in ("unit", "row", "modality")]),
        dead=_in_order(pa.concat_tables(part.dead for part in parts), "at", "part"),
        kept=_in_order(pa.concat_tables(part.kept for part in parts), "at", "part"),
        counts=sum((part.counts for part in parts), Counts()),
        items=sum(part.items for part in parts),
    )


def _in_order(table: pa.Table, *names: str) -> pa.Table:
    """By the last of some columns of numbers, then by the one before."""
    order = np.lexsort([table[name].to_numpy() for name in names])
    if (order[1:] > order[:-1]).all():
        return table
    return table.take(pa.array(order))
