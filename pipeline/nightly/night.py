"""A night: what is carried, deleted, linked and embedded so that a snapshot equals its source.

    shards that are as they were -> their files are carried, nothing is opened
    the others -> compare with the rows the last snapshot has of them
        in both             carried in their files
        of the snapshot     dead, or kept when the spec says so
        of the source       content that was embedded once -> linked to it
                            else the first of its content  -> embedded, the others linked to that

The plan follows from the source and the snapshot, so a run that was cut off makes the same units
again and finds those that are done. Units that were left behind, embedded and never committed, by a
run of another source, are looked at only for what would otherwise be embedded.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.driver import Wanted
from pipeline.folder import Folder
from pipeline.log import Kind, LogEntry, read_condemned, read_entry
from pipeline.manifest import (
    DATA,
    LINKS,
    QUARANTINE,
    VECTORS,
    Manifest,
    Part,
    Shard,
    parts_of,
)
from pipeline.nightly.aside import Aside
from pipeline.nightly.base import Place, apart, less
from pipeline.nightly.before import Before, demand_same_types
from pipeline.nightly.changes import first_of_each
from pipeline.nightly.compare import Compare, Sides
from pipeline.nightly.counts import Counts
from pipeline.nightly.held import held_shards
from pipeline.records import Records
from pipeline.schema import difference
from pipeline.work import Item, Link, Receipt, WorkUnit

Places = Callable[[Sequence[Part], pa.ChunkedArray], dict[bytes, Place]]
"""Looks where vectors of contents are, of those that are anywhere in the files of some parts."""


@dataclass(frozen=True, kw_only=True)
class Night:
    """The plans of one run; each fits one state of the dataset."""

    folder: Folder
    """The dataset's root."""
    units: Sequence[WorkUnit]
    """All of the source."""
    shards: Sequence[Shard]
    """Likewise."""
    schema: pa.Schema
    """Of the rows."""
    fingerprint: str
    """Of every embedding."""
    compare: Compare
    """Reads what has to be compared, and compares it."""
    places: Places
    """Looks for vectors that are there."""
    source_digest: str
    """Of all units."""
    keep_gone: bool = False
    """Whether rows that are gone from the source stay."""
    unread: frozenset[str] = frozenset()
    """Keys of its shards that cannot be read, of which there are no units."""
    again: frozenset[str] = frozenset()
    """Reasons; what was set aside for one of them is tried again, and what is lost is made anew."""
    _plans: dict[object, "_Plan"] = field(default_factory=dict)

    @cached_property
    def _records(self) -> Records:
        # records never change, so each is read once
        return Records(self.folder, self.fingerprint)

    def wanted(self, newest: LogEntry | None, void: frozenset[str]) -> Wanted:
        """The snapshot that is to follow a state of the dataset.

        Args:
            newest: entry of the log.
            void: paths of files that may not be used then.
        """
        plan = self._plan(newest)
        return Wanted(
            units=plan.embedded(self._records, void),
            shards=[*self.shards, *plan.held],
            schema=self.schema,
            fingerprint=self.fingerprint,
            source_digest=self.source_digest,
            carried=plan.carried,
            known=plan.known,
            items=plan.items,
            rest=plan.rest,
            otherwise=plan.otherwise,
        )

    def counts(self, newest: LogEntry | None) -> Counts:
        """What the comparison with that state found."""
        return self._plan(newest).counts

    def _plan(self, newest: LogEntry | None) -> "_Plan":
        base = self.base(newest)
        # what links may refer to may be condemned or withheld without a new snapshot
        state = None if newest is None else (base and base.manifest, *_beside(newest))
        if state not in self._plans:
            self._plans[state] = _Plan.of(self, base)
        return self._plans[state]

    def before(self, newest: LogEntry | None) -> Before:
        """What is there of the snapshot of an entry; None for nothing."""
        if self.again:
            return Before.mended(self.folder, newest, _keys(self.shards))
        return Before.whole(self.folder, newest)

    def base(self, newest: LogEntry | None) -> LogEntry | None:
        """The snapshot to go on from: the last that was made in the same way and neither refused
        nor rolled back, or that readers get all the same; None for none."""
        if newest is None:
            return None
        if newest.published == newest.snapshot and newest.fingerprint == self.fingerprint:
            return newest
        condemned = read_condemned(self.folder, newest)
        for version in range(newest.version, 0, -1):
            entry = read_entry(self.folder, version)
            doubted = entry.refused or version in newest.withheld
            if doubted and version != newest.published:
                # what the gate has refused would be carried, and not be looked at again
                continue
            is_ours = entry.kind is Kind.SNAPSHOT and entry.fingerprint == self.fingerprint
            if is_ours and entry.manifest not in condemned:
                return entry
        return None


def _beside(newest: LogEntry) -> tuple[str | None, tuple[int, ...]]:
    return newest.condemned, tuple(newest.withheld)


@dataclass(kw_only=True)
class _Plan:
    """What is to be done, given one snapshot."""

    night: Night
    held: list[Shard]
    """Shards of the snapshot before that cannot be read."""
    carried: list[Part]
    """Parts of the snapshot before, less what is dead."""
    known: dict[str, Part]
    """All parts that links may refer to, by path."""
    counts: Counts
    items: int
    """That there are to be: all of the source, and those that are kept though they are gone."""
    todo: pa.Table
    """Items of the source that no row of the snapshot is of, and the faulty ones: of `TODO`."""
    aside: Aside
    """What of them is tried again."""
    otherwise: Manifest | None
    """The snapshot before, when there is nothing else to do."""
    places: dict[bytes, Place]
    """Where the vectors of contents of `todo` are."""

    @classmethod
    def of(cls, night: Night, newest: LogEntry | None) -> "_Plan":
        """Compare the source with the snapshot of an entry; None for nothing."""
        # what is carried is not looked at again before the commit
        before = night.before(newest)
        base = before.manifest
        held = held_shards(night.unread, base, newest, night.schema)
        as_they_were = _keys(held)
        if newest is not None and difference(night.schema, newest.row_schema) is None:
            as_they_were |= before.unchanged(night.shards)
        parts = base.parts(DATA, LINKS)
        looked_at = [part for part in parts if part.shard not in as_they_were]
        carried = [p for p in base.parts(DATA, LINKS, QUARANTINE) if p.shard in as_they_were]
        aside = Aside.of(night.folder, carried, night.units, night.again)
        changed = {n: u for n, u in enumerate(night.units) if u.shard not in as_they_were}
        sides = Sides(
            units=sorted({**changed, **aside.units}.items()),
            parts=looked_at,
            schema=night.schema if newest is None else newest.row_schema,
            keep_gone=night.keep_gone,
        )
        found = night.compare(sides)
        aside.demand_all(found.todo)
        demand_same_types(night.schema, newest, found.kept.num_rows)
        carried = aside.carried(carried)
        items = sum(part.rows for part in carried)
        is_same = _keys(base.shards) == _keys([*night.shards, *held]) == as_they_were
        not_compared = sum(part.rows for part in carried if part.kind != QUARANTINE)
        carried += [*less(looked_at, found.dead), *apart(looked_at, found.kept)]
        return cls(
            night=night,
            held=held,
            carried=carried,
            known={part.file.path: part for part in base.parts(DATA, VECTORS)},
            items=items + found.items + found.kept.num_rows,
            counts=found.counts + Counts(carried=not_compared),
            todo=found.todo,
            aside=aside,
            otherwise=base if is_same and night.again and not found.dead.num_rows else None,
            places=night.places(base.parts(DATA, VECTORS), found.todo["content"]),
        )

    def embedded(self, records: Records, void: Collection[str]) -> list[WorkUnit]:
        """The units to be embedded.

        Args:
            records: of units that are done.
            void: paths of files that may not be used.
        """
        chosen = self._to_embed()
        units = {unit.key(self.night.fingerprint): n for n, unit in chosen.items()}
        missing = records.standing(units, void).missing
        if not missing:
            return list(chosen.values())
        committed = {part.unit for part in self.known.values()}
        strays = records.units() - committed - units.keys()
        left_behind = _data_of(records.standing(strays, void).receipts)
        lacking = [units[key] for key in missing]
        # of what is to be embedded: to find another row's content would change units that are done
        embedded = self.todo.filter(pa.array(~self._is_later()))
        wanted = embedded.filter(pc.is_in(embedded["unit"], pa.array(lacking, pa.int32())))
        self.known = {part.file.path: part for part in left_behind} | self.known
        found = self.night.places(left_behind, wanted["content"])
        self.places = found | self.places
        return list(self._to_embed().values())

    def _to_embed(self) -> dict[int, WorkUnit]:
        chosen: defaultdict[int, list[Item]] = defaultdict(list)
        whole: dict[int, int] = {}
        for row in self.todo.filter(pa.array(~self._is_later())).to_pylist():
            chosen[row["unit"]].append(Item(row=row["row"], modality=row["modality"]))
            whole[row["unit"]] = row["siblings"]
        return {
            # a unit of which everything is embedded is the same one on whichever night
            number: self.night.units[number]
            if number not in self.aside.units and len(items) == whole[number]
            else replace(self.night.units[number], only=tuple(items))
            for number, items in sorted(chosen.items())
        }

    def rest(self, receipts: Mapping[str, Receipt]) -> list[WorkUnit]:
        """What is to be done once the units to be embedded are.

        Args:
            receipts: of those, by key.
        """
        later = self.todo.filter(pa.array(self._is_later()))
        written = self.night.places(_data_of(receipts), later["content"])
        places = self.places | written
        links: defaultdict[int, list[Link]] = defaultdict(list)
        orphans: defaultdict[int, list[Item]] = defaultdict(list)
        for row in later.to_pylist():
            item = Item(row=row["row"], modality=row["modality"])
            if row["content"] in places:
                path, at = places[row["content"]]
                content = row["content"].hex()
                links[row["unit"]].append(Link(item=item, content=content, path=path, at=at))
            else:
                # the first of its content was set aside, and so will this be
                orphans[row["unit"]].append(item)
        units = self.night.units
        return [
            *(replace(units[n], only=tuple(items)) for n, items in sorted(orphans.items())),
            *(replace(units[n], links=tuple(found)) for n, found in sorted(links.items())),
        ]

    def _is_later(self) -> NDArray[np.bool_]:
        """Which items are not embedded because their content is, here or elsewhere, [items]."""
        first = first_of_each(self.todo["content"]) == np.arange(self.todo.num_rows)
        contents = self.todo["content"].to_pylist()
        return np.array(
            [
                content is not None and not (leads and content not in self.places)
                for content, leads in zip(contents, first, strict=True)
            ],
            np.bool_,
        )


def _keys(shards: Sequence[Shard]) -> set[str]:
    return {shard.key for shard in shards}


def _data_of(receipts: Mapping[str, Receipt]) -> list[Part]:
    """The data files of some units, in the order of their keys."""
    parts = (part for _, receipt in sorted(receipts.items()) for part in parts_of("", receipt))
    return [part for part in parts if part.kind == DATA]
