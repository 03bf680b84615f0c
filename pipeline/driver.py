"""The driver's side of the protocol: what is done is looked up, the rest is done, all is committed.

    newest entry -> records of the planned units -> units without one are embedded -> look again
                 -> every row accounted for -> next entry, unless somebody was faster -> look again

The order is the guarantee. The newest entry is read before the records are judged, and the commit
claims the version after that entry: whatever was committed or condemned in between makes it fail,
and then everything is judged anew. Units that are done cost a look, so a round too many is cheap.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from pipeline.commit import Snapshot, commit, demand_fit, digest, find_snapshot, reconcile
from pipeline.errors import CommitConflict, RunError
from pipeline.folder import Folder
from pipeline.log import LogEntry, newest_entry, read_condemned
from pipeline.manifest import Manifest, Shard, parts_of, read_manifest
from pipeline.records import Records, Standing
from pipeline.work import Receipt, WorkUnit

_ROUNDS = 10

Execute = Callable[
    [Sequence[WorkUnit], Mapping[str, int], Mapping[str, Receipt]], Sequence[Receipt]
]
"""Embeds units and records them, under the revisions named by key; returns their receipts. Of units
that have an earlier receipt, by key, only what was set aside is tried again."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a drive led to."""

    entry: LogEntry
    """The snapshot that holds the work."""
    receipts: list[Receipt] | None
    """Of all units, in the order of the plan; None when the snapshot was there before."""
    resumed: list[Receipt]
    """Of the units that were done before we began."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The snapshot that is to be."""

    units: Sequence[WorkUnit]
    """Of the plan."""
    shards: Sequence[Shard]
    """That they are of."""
    schema: pa.Schema
    """Of the rows."""
    fingerprint: str
    """Of every embedding."""

    @cached_property
    def planned(self) -> dict[str, WorkUnit]:
        """The units by key."""
        return {unit.key(self.fingerprint): unit for unit in self.units}

    @cached_property
    def digest(self) -> str:
        """Of the units."""
        return digest(self.units, self.fingerprint)

    def snapshot(self, receipts: Sequence[Receipt]) -> Snapshot:
        """What is to be committed, given the receipts of all units."""
        parts = [part for r in receipts for part in parts_of(self.planned[r.unit].shard, r)]
        return Snapshot(
            manifest=Manifest.of(self.shards, parts),
            schema=self.schema,
            fingerprint=self.fingerprint,
            source_digest=self.digest,
        )


def drive(
    folder: Folder,
    wanted: Wanted,
    *,
    execute: Execute,
    accept: Callable[[Sequence[Receipt]], None],
    again: frozenset[str] = frozenset(),
) -> Outcome:
    """See to it that a snapshot of exactly these units is committed.

    Args:
        folder: the dataset's root.
        wanted: the snapshot.
        execute: called with the units that are not done.
        accept: called with all receipts before a commit; it raises to refuse them.
        again: reasons; what was set aside for one of them is tried once more.

    Raises:
        OutputError: vectors made another way have been committed there.
        RunError: what was written is not there, or rows are missing.
        CommitConflict: others kept committing to this output.
    """
    fingerprint = wanted.fingerprint
    records, done = Records(folder, fingerprint), _Done(execute=execute, again=again)
    for _ in range(_ROUNDS):
        newest = newest_entry(folder)
        demand_fit(folder, newest, wanted.schema, [fingerprint])
        there = find_snapshot(newest, wanted.digest, fingerprint)
        if there is not None and not again:
            return Outcome(entry=there, receipts=None, resumed=[])
        standing = records.standing(wanted.planned, read_condemned(folder, newest))
        written = done.rest(standing, wanted.planned)
        if written is not None:
            _demand_there(folder, records, written, newest)
            continue
        receipts = reconcile(wanted.units, standing.receipts, fingerprint)
        snapshot = wanted.snapshot(receipts)
        if there is None or read_manifest(folder, there.manifest) != snapshot.manifest:
            accept(receipts)
            there = None
            with suppress(CommitConflict):
                there = commit(folder, snapshot, newest)
        if there is not None:
            return Outcome(entry=there, receipts=receipts, resumed=done.before)
    raise CommitConflict(
        f"{folder.uri!r}: others committed {_ROUNDS} times meanwhile; run the same command again"
    )


@dataclass(kw_only=True)
class _Done:
    """What this drive has had done."""

    execute: Execute
    again: frozenset[str]
    before: list[Receipt] = field(default_factory=list)
    """Of the units that were done before it began."""
    _begun: bool = False

    def rest(self, standing: Standing, planned: Mapping[str, WorkUnit]) -> Sequence[Receipt] | None:
        """Do what is not done, the first time with what is to be tried again; None for nothing."""
        earlier: dict[str, Receipt] = {}
        if not self._begun:
            self._begun = True
            self.before = list(standing.receipts.values())
            earlier = {
                unit: receipt
                for unit, receipt in standing.receipts.items()
                if not self.again.isdisjoint(receipt.quarantined)
            }
        todo = [*standing.missing, *earlier]
        if not todo:
            return None
        revisions = {unit: r for unit in todo if (r := standing.revisions[unit])}
        return self.execute([planned[unit] for unit in todo], revisions, earlier)


def _demand_there(
    folder: Folder, records: Records, done: Sequence[Receipt], newest: LogEntry | None
) -> None:
    """Look where readers will: a worker may have written to a disk of its own."""
    if newest_entry(folder) != newest:
        # what was written may have been condemned meanwhile
        return
    standing = records.standing([r.unit for r in done], read_condemned(folder, newest))
    if standing.missing:
        unit = standing.missing[0]
        raise RunError(
            f"{folder.uri}: unit {unit} was written and is not there; on a cluster output.uri must "
            "be an object store, or a disk that all nodes share"
        )
