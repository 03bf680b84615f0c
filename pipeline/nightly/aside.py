"""Aside: what a snapshot has set aside for some reasons, tried again without what lies around it.

The quarantine says which items of which rows those are. Units of their shards, confined to them,
are all that is read; the embeddings beside them are carried in their files, and so is what was set
aside for other reasons: its rows live on in the file of the quarantine, and those that are tried
are dead there.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ahead import ahead
from pipeline.errors import ConservationError
from pipeline.folder import Folder
from pipeline.fragments import living_rows, read_file
from pipeline.manifest import QUARANTINE, Manifest, Part
from pipeline.work import Item, WorkUnit

_OF_ROW = ("row", "modality", "reason")


@dataclass(frozen=True, kw_only=True)
class Aside:
    """What of a quarantine is tried again."""

    units: Mapping[int, WorkUnit] = field(default_factory=dict)
    """Those that may have such items, confined to them, by number."""
    rows: frozenset[tuple[str, int]] = frozenset()
    """The rows of those items: the key of the shard, and the number in it."""
    left: Mapping[str, Part] = field(default_factory=dict)
    """The parts of the quarantine that have some, without them, by path."""

    @classmethod
    def of(
        cls,
        folder: Folder,
        parts: Sequence[Part],
        units: Sequence[WorkUnit],
        reasons: Collection[str],
    ) -> "Aside":
        """Look through a quarantine.

        Args:
            folder: the dataset's root.
            parts: of shards that are as they were.
            units: all of the source.
            reasons: what was set aside for one of them is tried again.

        Raises:
            OutputError: a file of the quarantine is gone or damaged.
        """
        chosen: defaultdict[tuple[str, str], list[Item]] = defaultdict(list)
        left: dict[str, Part] = {}
        for part, rows in _read(folder, parts if reasons else ()):
            is_tried = pc.is_in(rows["reason"], pa.array(sorted(reasons), pa.string()))
            tried = living_rows(part) & is_tried.to_numpy(zero_copy_only=False)
            if tried.any():
                dead = np.flatnonzero(tried | ~living_rows(part)).tolist()
                left[part.file.path] = replace(part, dead=tuple(dead))
                items = rows.filter(pa.array(tried)).select(["row", "modality"]).to_pylist()
                chosen[part.shard, part.adapter] += [Item(**item) for item in items]
        confined = {n: _confined(unit, chosen) for n, unit in enumerate(units)}
        return cls(
            units={n: unit for n, unit in confined.items() if unit.only},
            rows=frozenset((key, item.row) for (key, _), of in chosen.items() for item in of),
            left=left,
        )

    def carried(self, parts: Sequence[Part]) -> list[Part]:
        """Parts of the snapshot without what is tried again."""
        left = (self.left.get(part.file.path, part) for part in parts)
        return [part for part in left if part.rows]

    def demand_all(self, todo: pa.Table) -> None:
        """Refuse a reading of the source that has not found every row that is to be tried again.

        Args:
            todo: the items that were found, of `TODO`.

        Raises:
            ConservationError: some are missing.
        """
        pairs = zip(todo["unit"].to_pylist(), todo["row"].to_pylist(), strict=True)
        found = {(self.units[unit].shard, row) for unit, row in pairs if unit in self.units}
        if not found >= self.rows:
            raise ConservationError(
                f"{len(self.rows - found):,} of {len(self.rows):,} rows that were set aside are "
                "not in shards that are as they were; nothing was committed"
            )


def reasons_in(folder: Folder, manifest: Manifest) -> Counter[str]:
    """How many items a snapshot has set aside, by reason.

    Raises:
        OutputError: a file of its quarantine is gone or damaged.
    """
    count: Counter[str] = Counter()
    for part, rows in _read(folder, manifest.parts()):
        count.update(rows["reason"].filter(pa.array(living_rows(part))).to_pylist())
    return count


def _confined(unit: WorkUnit, chosen: Mapping[tuple[str, str], Sequence[Item]]) -> WorkUnit:
    first, stop = unit.segment.first_row, unit.segment.first_row + unit.segment.rows
    items = chosen.get((unit.shard, unit.adapter), ())
    # those of other units of the segment are told apart by reading: which rows are whose is not
    # known where tasks alternate
    return replace(unit, only=tuple(item for item in items if first <= item.row < stop))


def _read(folder: Folder, parts: Sequence[Part]) -> Iterator[tuple[Part, pa.Table]]:
    aside = [part for part in parts if part.kind == QUARANTINE]
    files = ahead(partial(read_file, folder), [part.file for part in aside])
    for part, rows in zip(aside, files, strict=True):
        yield part, rows.select(_OF_ROW)
