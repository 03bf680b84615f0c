"""An audit: whether a collection holds what a snapshot does, by the store's own answers.

All points are held against the snapshot by UUID and stamp, which no vector is read for; of a
sample, or of all, everything that the point holds is read back and compared.

Legend: N points.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.index.layout import POINT, STAMP, Layout
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.store import VectorStore

SAMPLE = 100
"""Rows that are read back after a backfill."""
_FILES = 20
"""Of a snapshot, that a sample is taken from."""
_FETCHED = 256
"""Points that are asked for at a time."""
TOLERANCE = {"float32": 1e-5, "float16": 2e-3}
"""By which a number may differ that a store has normalised anew, or rounded."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A point that is not as the snapshot has it."""

    point: bytes
    """Its UUID."""
    id: str
    """Of the row."""
    what: str
    """What differs, in words."""


def sample(rows: Sequence[Rows], most: int, seed: int) -> list[Rows]:
    """Some of many rows, from a few files; all of them where there are no more.

    Args:
        rows: of a snapshot.
        most: how many.
        seed: which ones.
    """
    sizes = np.array([some.count for some in rows], np.float64)
    if sizes.sum() <= most or not most:
        return list(rows) if most else []
    random = np.random.default_rng(seed)
    files = min(_FILES, int(np.count_nonzero(sizes)))
    drawn = random.choice(len(rows), files, replace=False, p=sizes / sizes.sum())
    found = []
    for n in sorted(drawn.tolist()):
        there = rows[n].numbers()
        few = min(len(there), -(-most // files))
        at = np.sort(random.choice(there, few, replace=False))
        found.append(Rows(part=rows[n].part, at=at))
    return found


def deviations(
    store: VectorStore,
    collection: str,
    snapshot: Snapshot,
    layout: Layout,
    rows: Iterable[Rows],
    most: int | None,
) -> Iterator[tuple[Rows, list[Deviation]]]:
    """What of some rows a store has otherwise than the snapshot; each is read back whole.

    Args:
        store: that is audited.
        collection: of it.
        snapshot: that it is to hold.
        layout: of the collection.
        rows: to be looked at.
        most: vectors that a multi-vector of the store may have; None for no bound.
    """
    for group in _groups(rows, lambda some: snapshot.points([some], layout, 0, most).table):
        wanted = pa.concat_tables(table for _, table in group)
        wrong: dict[int, Deviation] = {}
        for start in range(0, wanted.num_rows, _FETCHED):
            part = wanted.slice(start, _FETCHED)
            there = store.fetch(collection, layout, part[POINT].to_pylist())
            wrong |= {start + at: one for at, one in _compared(part, there, layout)}
        first = 0
        for some, table in group:
            last = first + table.num_rows
            yield some, [wrong[at] for at in range(first, last) if at in wrong]
            first = last


def _groups(
    rows: Iterable[Rows], points: Callable[[Rows], pa.Table]
) -> Iterator[list[tuple[Rows, pa.Table]]]:
    """Rows with their points: many of those that have few, so that they are asked for together."""
    held: list[tuple[Rows, pa.Table]] = []
    for some in rows:
        held.append((some, points(some)))
        if sum(table.num_rows for _, table in held) >= _FETCHED:
            yield held
            held = []
    if held:
        yield held


def _compared(wanted: pa.Table, found: pa.Table, layout: Layout) -> Iterator[tuple[int, Deviation]]:
    """Where points are not as they were found, and how."""
    plain = [POINT, STAMP, *(name for name, _ in layout.payload)]
    there = {row[POINT]: (at, row) for at, row in enumerate(found.select(plain).to_pylist())}
    vectors = {name: (_vectors(wanted[name]), _vectors(found[name])) for name in layout.vectors}
    for at, row in enumerate(wanted.select(plain).to_pylist()):
        point, name = row[POINT], str(row["id"])
        if point not in there:
            yield at, Deviation(point=point, id=name, what="it is missing")
            continue
        where, other = there[point]
        wrong = [key for key in plain if other[key] != row[key]]
        wrong += [
            key
            for key, (ours, theirs) in vectors.items()
            if _differ(ours[at], theirs[where], TOLERANCE[layout.vectors[key].dtype])
        ]
        if wrong:
            yield at, Deviation(point=point, id=name, what=f"other {', '.join(wrong)}")


def _vectors(column: pa.ChunkedArray) -> list[pa.Array | None]:
    return [cell.values if cell.is_valid else None for cell in column]


def _differ(ours: pa.Array | None, theirs: pa.Array | None, tolerance: float) -> bool:
    """Whether two vectors, or lists of vectors, are not the same."""
    if ours is None or theirs is None:
        return ours is not theirs
    if len(ours) != len(theirs):
        return True
    return not bool(np.all(np.abs(_numbers(ours) - _numbers(theirs)) <= tolerance))


def _numbers(values: pa.Array) -> NDArray[np.float32]:
    flat = values.flatten() if pa.types.is_nested(values.type) else values
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32)
