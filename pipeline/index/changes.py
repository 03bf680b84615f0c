"""What has to be written and deleted for a collection to hold a snapshot.

Two ways lead there. Where the collection is known to hold an earlier snapshot, the two manifests
are compared: files that both have are not opened, and of the others only names and payload are
read. Where it is not known what it holds (a backfill was killed, the earlier snapshot was
collected, the count is wrong), the store is asked for the stamps of all its points: whatever it
holds, what is missing, different, there twice or too much is found.

    difference   24 bytes in memory for each row of the files that differ
    reconcile    24 bytes in memory for each row of the snapshot, and for each point of the store

Legend: N rows. A sign is what a point is, and what it holds: UUID and stamp, 24 bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.ahead import ahead
from pipeline.index.layout import POINT, POINT_TYPE, STAMP, Layout
from pipeline.index.points import octets_of, part_ids, parts_of, point_ids, stamps
from pipeline.index.rows import Rows, Snapshot, with_origins
from pipeline.manifest import Part

_SIGN = pa.binary(24)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What has to be done, in this order."""

    doubled: pa.Array
    """UUIDs of points that are there more than once, to be deleted before they are written."""
    upserts: list[Rows]
    """To be written."""
    deletes: pa.Array
    """UUIDs of points to be deleted at last."""
    points: int
    """How many there are in the end."""
    holds: list[Rows]
    """Those of the snapshot that are there in the end."""
    repeated: int = 0
    """Rows that share id, modality and task with a later one, which is the one that is written."""

    @property
    def rows(self) -> int:
        """To be written."""
        return sum(rows.count for rows in self.upserts)


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What points are and hold."""

    own: pa.Array
    """[N] signs of rows."""
    further: pa.Array
    """Signs of the further parts of those that are split."""


def signs_of(snapshot: Snapshot, layout: Layout, rows: Rows, most: int | None) -> Signs:
    """The signs of rows; no vector is read.

    Args:
        snapshot: of the rows.
        layout: of the collection.
        rows: some.
        most: vectors that a point takes, where documents are split; None where they are not.
    """
    names = [name for name, _ in layout.payload]
    counted = [] if most is None else ["n_tokens"]
    table = snapshot.read(rows, list(dict.fromkeys([*names, *counted])))
    ids = point_ids(snapshot.dataset, table)
    told = stamps(with_origins(table, snapshot.origins(rows)), layout)
    further = [pa.array([], _SIGN)]
    if most is not None:
        parts = parts_of(table["n_tokens"].to_numpy(), most)
        for part in range(1, int(parts.max(initial=1))):
            at = np.flatnonzero(parts > part)
            further.append(_signs(part_ids(ids.take(pa.array(at)), part), told[at]))
    return Signs(own=_signs(ids, told), further=pa.concat_arrays(further))


def everything(snapshot: Snapshot) -> Changes:
    """All rows of a snapshot, for a collection that is empty; rows that repeat are not known."""
    rows = _all_of(snapshot)
    return Changes(
        doubled=pa.array([], POINT_TYPE),
        upserts=rows,
        deletes=pa.array([], POINT_TYPE),
        points=snapshot.entry.rows,
        holds=rows,
    )


def difference(
    before: Snapshot, after: Snapshot, layout: Layout, most: int | None, points: int
) -> Changes:
    """What differs between two snapshots of a dataset.

    Args:
        before: that the collection holds.
        after: that it is to hold.
        layout: of the collection.
        most: as for `signs_of`.
        points: how many the collection has.
    """
    gone, come = _changed(before.parts, after.parts)
    had = _all(ahead(lambda rows: signs_of(before, layout, rows, most), gone))
    new = list(ahead(lambda rows: signs_of(after, layout, rows, most), come))
    has = _all(new)
    deletes = _without(_points(had), _points(has))
    return Changes(
        doubled=pa.array([], POINT_TYPE),
        upserts=_upserts(come, new, had),
        deletes=deletes,
        points=points - len(deletes) + len(_without(_points(has), _points(had))),
        holds=_all_of(after),
    )


def reconcile(
    store: Iterable[pa.Table], after: Snapshot, layout: Layout, most: int | None
) -> Changes:
    """What differs between a store and a snapshot.

    Args:
        store: its points and stamps, from `VectorStore.scan`.
        after: that it is to hold.
        layout: of the collection.
        most: as for `signs_of`.
    """
    there = [_signs(_binary(t[POINT]), t[STAMP].to_numpy()) for t in store]
    had = pa.concat_arrays([pa.array([], _SIGN), *there])
    rows = _all_of(after)
    new = list(ahead(lambda some: signs_of(after, layout, some, most), rows))
    come, new, repeated = _last_of_each(rows, new)
    has = _points(_all(new))
    counts = _points(had).value_counts()
    points, times = counts.field("values"), counts.field("counts")
    doubled = points.filter(pc.greater(times, 1))
    once = had.filter(pc.invert(pc.is_in(_points(had), value_set=doubled)))
    return Changes(
        doubled=doubled,
        upserts=_upserts(come, new, once),
        deletes=_without(points, has),
        points=len(has),
        holds=come,
        repeated=repeated,
    )


def _all_of(snapshot: Snapshot) -> list[Rows]:
    return [Rows(part=part) for part in snapshot.parts]


def _changed(before: Sequence[Part], after: Sequence[Part]) -> tuple[list[Rows], list[Rows]]:
    """The rows of the one that the other may not have, and the other way round."""
    had = {part.file.path: part for part in before}
    has = {part.file.path: part for part in after}
    return _rows_of(had, has), _rows_of(has, had)


def _rows_of(parts: dict[str, Part], others: dict[str, Part]) -> list[Rows]:
    found = []
    for path, part in parts.items():
        other = others.get(path)
        if other is None:
            found.append(Rows(part=part))
            continue
        # of a file that both have, the rows that only the other has buried
        at = sorted(set(other.dead) - set(part.dead))
        if at:
            found.append(Rows(part=part, at=np.array(at, np.int64)))
    return found


def _upserts(come: Sequence[Rows], new: Sequence[Signs], had: pa.Array) -> list[Rows]:
    """Of some rows those that are not there as they are."""
    upserts = []
    for rows, signs in zip(come, new, strict=True):
        is_new = pc.invert(pc.is_in(signs.own, value_set=had)).to_numpy(zero_copy_only=False)
        if is_new.any():
            upserts.append(_picked(rows, is_new))
    return upserts


def _last_of_each(
    rows: Sequence[Rows], new: Sequence[Signs]
) -> tuple[list[Rows], list[Signs], int]:
    """Rows without those that share their point with a later one, and how many those are."""
    points = _points(pa.concat_arrays([pa.array([], _SIGN), *(signs.own for signs in new)]))
    counts = points.value_counts()
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if not len(repeated):
        return list(rows), list(new), 0
    seen: set[bytes] = set()
    kept_rows, kept_signs, dropped = [], [], 0
    for some, signs in zip(reversed(rows), reversed(new), strict=True):
        own = _points(signs.own)
        kept = np.ones(len(own), np.bool_)
        doubtful = pc.is_in(own, value_set=repeated).to_numpy(zero_copy_only=False)
        for at in np.flatnonzero(doubtful)[::-1]:
            name = own[int(at)].as_py()
            kept[at] = name not in seen
            seen.add(name)
        dropped += int((~kept).sum())
        kept_rows.append(_picked(some, kept))
        kept_signs.append(Signs(own=signs.own.filter(pa.array(kept)), further=signs.further))
    return kept_rows[::-1], kept_signs[::-1], dropped


def _picked(rows: Rows, wanted: NDArray[np.bool_]) -> Rows:
    if wanted.all():
        return rows
    there = rows.numbers()
    return Rows(part=rows.part, at=there[wanted])


def _all(signs: Iterable[Signs]) -> pa.Array:
    pieces = [piece for some in signs for piece in (some.own, some.further)]
    return pa.concat_arrays([pa.array([], _SIGN), *pieces])


def _signs(points: pa.Array, told: NDArray[np.int64]) -> pa.Array:
    """[N] signs, of UUIDs and stamps."""
    octets = np.empty((len(points), 24), np.uint8)
    octets[:, :16] = octets_of(points, 16)
    octets[:, 16:] = np.ascontiguousarray(told).view(np.uint8).reshape(-1, 8)
    return pa.Array.from_buffers(_SIGN, len(points), [None, pa.py_buffer(octets.tobytes())])


def _points(signs: pa.Array) -> pa.Array:
    """[N] UUIDs of signs."""
    octets = np.ascontiguousarray(octets_of(signs, 24)[:, :16])
    return pa.Array.from_buffers(POINT_TYPE, len(signs), [None, pa.py_buffer(octets.tobytes())])


def _binary(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], POINT_TYPE), *column.cast(POINT_TYPE).chunks])


def _without(points: pa.Array, others: pa.Array) -> pa.Array:
    return points.filter(pc.invert(pc.is_in(points, value_set=others)))
