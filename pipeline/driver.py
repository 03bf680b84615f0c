"""The driver's side of the protocol: what is done is looked up, the rest is done, all is committed.

    newest entry -> records of the planned units -> units without one are embedded -> look again
                 -> every row accounted for -> next entry, unless somebody was faster -> look again

The order is the guarantee. The newest entry is read before the records are judged, and the commit
claims the version after that entry: whatever was committed or condemned in between makes it fail,
and then everything is judged anew. Units that are done cost a look, so a round too many is cheap;
only those in which another was faster are counted.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.commit import ROUNDS, Snapshot, commit, contended, find_snapshot, reconcile
from pipeline.errors import CommitConflict, ConservationError, OutputError, RunError
from pipeline.folder import Folder
from pipeline.log import LogEntry, newest_entry
from pipeline.manifest import Manifest, Part, Shard, lenders, parts_of, read_manifest, read_void
from pipeline.records import Records, Standing
from pipeline.verdict import Verdict
from pipeline.work import Receipt, WorkUnit

Execute = Callable[
    [Sequence[WorkUnit], Mapping[str, int], Mapping[str, Receipt]], Sequence[Receipt]
]
"""Embeds units and records them, under the revisions named by key; returns their receipts. Of units
that have an earlier receipt, by key, only what was set aside is tried again."""

Accept = Callable[[Snapshot, Sequence[Receipt]], Verdict]
"""Says whether readers get a snapshot; it raises when it is not even to be committed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a drive led to."""

    entry: LogEntry
    """The snapshot that holds the work."""
    receipts: list[Receipt] | None
    """Of all units, in the order of the plan; None when the snapshot was there before."""
    resumed: list[Receipt]
    """Of the units that were done before we began."""


def _nothing(receipts: Mapping[str, Receipt]) -> Sequence[WorkUnit]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The snapshot that is to be."""

    units: Sequence[WorkUnit]
    """What is to be embedded."""
    shards: Sequence[Shard]
    """All of the source."""
    schema: pa.Schema
    """Of the rows."""
    fingerprint: str
    """Of every embedding."""
    source_digest: str
    """Of all units of the source, from `commit.digest`."""
    carried: Sequence[Part] = ()
    """What of the snapshot before it holds as well."""
    known: Mapping[str, Part] = field(default_factory=dict)
    """Data files that links may refer to, by path."""
    items: int | None = None
    """Embeddings and items set aside that there are to be; None when the units alone decide."""
    otherwise: Manifest | None = None
    """What stays when the units come to nothing, since it differs by what they try again alone."""
    rest: Callable[[Mapping[str, Receipt]], Sequence[WorkUnit]] = _nothing
    """What is to be done once the units are; called with their receipts, by key."""

    def keyed(self, units: Sequence[WorkUnit]) -> dict[str, WorkUnit]:
        """Units by key."""
        return {unit.key(self.fingerprint): unit for unit in units}

    def snapshot(self, units: Mapping[str, WorkUnit], receipts: Sequence[Receipt]) -> Snapshot:
        """What is to be committed.

        Args:
            units: all of them, by key.
            receipts: of them all, in the order of the plan.

        Raises:
            ConservationError: it does not hold as many items as it is to.
        """
        gains = any(receipt.embedded or receipt.linked for receipt in receipts)
        as_it_is = None if gains else self.otherwise
        return Snapshot(
            manifest=as_it_is or self._manifest(units, receipts),
            schema=self.schema,
            fingerprint=self.fingerprint,
            source_digest=self.source_digest,
        )

    def _manifest(self, units: Mapping[str, WorkUnit], receipts: Sequence[Receipt]) -> Manifest:
        parts = [*self.carried]
        parts += [part for r in receipts for part in parts_of(units[r.unit].shard, r)]
        manifest = Manifest.of(self.shards, [*parts, *lenders(parts, self.known)])
        held = manifest.rows + manifest.quarantined
        if self.items not in (None, held):
            raise ConservationError(
                f"{self.items:,} items are in the source or kept, and the snapshot would hold "
                f"{held:,}; nothing was committed"
            )
        return manifest


def drive(
    folder: Folder,
    plan: Callable[[LogEntry | None, frozenset[str]], Wanted],
    *,
    execute: Execute,
    accept: Accept,
    again: frozenset[str] = frozenset(),
) -> Outcome:
    """See to it that the snapshot that is wanted is committed.

    Args:
        folder: the dataset's root.
        plan: called with the newest entry of the log and the paths that may not be used; the
            snapshot that is to follow.
        execute: called with the units that are not done.
        accept: called before a commit, with all receipts; it says whether readers get it.
        again: reasons; what was set aside for one of them is tried once more.

    Raises:
        RunError: what was written is not there, or rows are missing.
        CommitConflict: others kept committing to this output.
    """
    done = _Done(execute=execute, again=again)
    lost = 0
    while lost < ROUNDS:
        newest = newest_entry(folder)
        try:
            void = read_void(folder, newest)
            outcome = _round(folder, plan(newest, void), newest, void, done, accept)
        except CommitConflict:
            lost += 1
            continue
        except (OutputError, FileNotFoundError):
            # what it went by may have been collected meanwhile
            if newest_entry(folder) == newest:
                raise
            lost += 1
            continue
        if outcome is not None:
            return outcome
    raise contended(folder)


def _round(
    folder: Folder,
    wanted: Wanted,
    newest: LogEntry | None,
    void: Collection[str],
    done: "_Done",
    accept: Accept,
) -> Outcome | None:
    """Do what is not done, or else commit; None when something was done, and is to be looked at.

    Raises:
        CommitConflict: another was faster.
    """
    there = find_snapshot(newest, wanted.source_digest, wanted.fingerprint)
    if there is not None and not there.candidate and not done.again:
        return Outcome(entry=there, receipts=None, resumed=[])
    records = done.records_of(folder, wanted.fingerprint)
    units, standing, written = done.all_of(wanted, records, void)
    if written is not None:
        _demand_there(folder, records, written, newest)
        return None
    receipts = reconcile(units, standing.receipts)
    snapshot = wanted.snapshot(units, receipts)
    if there is not None and read_manifest(folder, there.manifest) != snapshot.manifest:
        there = None
    if there is None or there.candidate:
        # a candidate is judged again: the limits may be others by now
        verdict = accept(snapshot, receipts)
        if there is None or verdict.publish or tuple(there.refused) != verdict.refused:
            there = commit(folder, snapshot, newest, verdict)
    return Outcome(entry=there, receipts=receipts, resumed=done.before)


@dataclass(kw_only=True)
class _Done:
    """What this drive has had done."""

    execute: Execute
    again: frozenset[str]
    before: list[Receipt] = field(default_factory=list)
    """Of the units that were done before it began."""
    _begun: bool = False
    _records: Records | None = None

    def records_of(self, folder: Folder, fingerprint: str) -> Records:
        """The records, each of which is read once."""
        self._records = self._records or Records(folder, fingerprint)
        return self._records

    def all_of(
        self, wanted: Wanted, records: Records, void: Collection[str]
    ) -> tuple[dict[str, WorkUnit], Standing, Sequence[Receipt] | None]:
        """Do what is not done, first what is embedded and then what follows from that.

        Returns:
            the units by key, what had been done of them, and what was done now; None for nothing.
        """
        units = wanted.keyed(wanted.units)
        standing = records.standing(units, void)
        written = self._first(standing, units)
        if written is None:
            units |= wanted.keyed(wanted.rest(standing.receipts))
            standing = records.standing(units, void)
            written = self._do(standing.missing, standing, units, {})
        return units, standing, written

    def _first(
        self, standing: Standing, planned: Mapping[str, WorkUnit]
    ) -> Sequence[Receipt] | None:
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
        return self._do([*standing.missing, *earlier], standing, planned, earlier)

    def _do(
        self,
        todo: Sequence[str],
        standing: Standing,
        planned: Mapping[str, WorkUnit],
        earlier: Mapping[str, Receipt],
    ) -> Sequence[Receipt] | None:
        if not todo:
            return None
        revisions = {unit: r for unit in todo if (r := standing.revisions[unit])}
        return self.execute([planned[unit] for unit in todo], revisions, earlier)


def _demand_there(
    folder: Folder, records: Records, done: Sequence[Receipt], newest: LogEntry | None
) -> None:
    """Look where readers will: a worker may have written to a disk of its own.

    Raises:
        CommitConflict: another has committed, and may have condemned what was written.
        RunError: a unit is not there.
    """
    if newest_entry(folder) != newest:
        raise CommitConflict(f"{folder.uri!r}: another has committed while units were done")
    standing = records.standing([r.unit for r in done], read_void(folder, newest))
    if standing.missing:
        unit = standing.missing[0]
        raise RunError(
            f"{folder.uri}: unit {unit} was written and is not there; on a cluster output.uri must "
            "be an object store, or a disk that all nodes share"
        )
