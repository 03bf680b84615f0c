"""A backfill: a collection of a vector store made to hold a snapshot, no more and no less.

    begin -> write what differs -> settle -> count, and read some back -> alias -> end

Readers get a collection by its alias. Where it can be brought up in place, that is done by what
differs; else, or when that is asked for, a new one is filled, which takes the alias over in one
step when it has been found to be right. The one before is kept, for a rollback. A backfill that was
killed is gone on with: what a store has is asked of the store.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.dataset import open_dataset
from pipeline.errors import CollectionError, OutputError, StoreDiffers, StoreFailed
from pipeline.index.audit import SAMPLE, deviations, sample
from pipeline.index.changes import Changes, difference, everything, reconcile
from pipeline.index.destination import Chosen, Destination, live_of
from pipeline.index.feed import Rejected
from pipeline.index.history import Entry, Held, History, Step
from pipeline.index.layout import Layout
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.spec import VectorStoreSpec
from pipeline.index.store import VectorStore
from pipeline.index.write import Writer, Written, most_vectors

Write = Callable[[Writer, Sequence[Rows]], Iterable[Written]]
"""Has rows written, by one call of the writer or by many at once."""
_ROUNDS = 3
"""In which the store is asked what it has, before it is given up."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a backfill did."""

    collection: str
    """That readers get by the alias."""
    version: int
    """The snapshot that it holds."""
    points: int
    """How many it has."""
    how: str
    """`up to date`, `difference`, `reconciled` or `new collection`."""
    written: int = 0
    """Points that were written."""
    deleted: int = 0
    """Points that were deleted."""
    shortened: int = 0
    """Documents that were pooled or split, because they have too many vectors."""
    repeated: int = 0
    """Rows that share id, modality and task with another, of which the last was written."""
    rejected: tuple[Rejected, ...] = ()
    """Points that the store refused."""
    previous: str | None = None
    """The collection before, kept for a rollback."""


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """A snapshot, and the collection that is to hold it."""

    snapshot: Snapshot
    """What is to be held."""
    spec: VectorStoreSpec
    """Of the collection."""
    layout: Layout
    """Of its points."""
    store: VectorStore
    """Connected."""
    writer: Callable[[Entry, bool], Writer]
    """Makes what writes, of the step with which it began, and whether the collection is new."""
    write: Write
    """Has it done."""

    def run(
        self, *, beside: bool = False, older: bool = False, again: Sequence[Rows] | None = None
    ) -> Report:
        """Bring the collection up to the snapshot.

        Args:
            beside: whether a new collection is filled, whatever there is.
            older: whether the snapshot may be older than what the collection holds.
            again: rows that are written whatever the store says of them, after it has been asked
                for everything; None for a backfill that is no repair.

        Raises:
            CollectionError: what is there is not ours, or holds a newer snapshot.
            Superseded: another backfill has begun.
            StoreFailed: the store failed for too long, or refused too much.
            StoreDiffers: it does not hold what was written to it.
        """
        history = History(self.snapshot.folder, self.spec)
        there = Destination.of(self.snapshot, self.spec, self.layout, self.store, history.newest())
        if not older:
            there.demand_newer()
        if again is None and not beside and there.is_up_to_date():
            return self._up_to_date(there)
        chosen = there.choose(beside)
        begun = history.append(there.begun(chosen))
        try:
            for name in begun.doomed:
                self.store.drop(name)
            if chosen.held is None:
                self.store.create(chosen.collection, self.layout, self.snapshot.dataset)
            changes, how = self._changes(chosen, again)
            return self._ended(history, begun, self._done(begun, changes, how))
        except Exception:
            # a collection that another backfill has dropped is missed in each store's own words
            history.demand_newest(begun)
            raise

    def _up_to_date(self, there: Destination) -> Report:
        live = str(there.live)
        return Report(
            collection=live,
            version=self.snapshot.version,
            points=there.newest.held[live].points,
            how="up to date",
            previous=there.newest.previous,
        )

    def _changes(self, chosen: Chosen, again: Sequence[Rows] | None) -> tuple[Changes, str]:
        held = chosen.held
        if held is None:
            return everything(self.snapshot), "new collection"
        before = self._snapshot_before(held, chosen.collection) if again is None else None
        if before is not None:
            most = self._split_at()
            changes = difference(before, self.snapshot, self.layout, most, held.points)
            return changes, "difference"
        changes = self.reconciled(chosen.collection)
        return replace(changes, upserts=[*changes.upserts, *(again or ())]), "reconciled"

    def _snapshot_before(self, held: Held, target: str) -> Snapshot | None:
        """The snapshot that a collection holds; None where that is not known, or it is gone."""
        if held.version is None or self.store.count(target) != held.points:
            return None
        try:
            return Snapshot.of(open_dataset(self.snapshot.uri, held.version))
        except OutputError:
            return None

    def reconciled(self, target: str) -> Changes:
        """What a collection lacks, and has too much, by what the store says of all its points."""
        self.store.settle(target, self.layout)
        there = self.store.scan(target)
        return reconcile(there, self.snapshot, self.layout, self._split_at())

    def _split_at(self) -> int | None:
        """Vectors after which a document is split; None where none is."""
        split = self.layout.too_long == "split"
        return most_vectors(self.store, self.layout) if split else None

    def _done(self, begun: Entry, changes: Changes, how: str) -> Report:
        """Do what has to be done, and ask the store whether it has it."""
        report = Report(
            collection=begun.collection, version=self.snapshot.version, points=0, how=how
        )
        for _ in range(_ROUNDS):
            report, is_right = self._round(begun, changes, report)
            if is_right:
                self._demand_as_written(begun, changes, report.rejected)
                return report
            changes = self.reconciled(begun.collection)
        raise StoreDiffers(
            f"collection {begun.collection!r} has {self.store.count(begun.collection):,} points "
            f"and should have {changes.points:,}, after {_ROUNDS} rounds; is somebody else "
            "writing to it?"
        )

    def _round(self, begun: Entry, changes: Changes, report: Report) -> tuple[Report, bool]:
        is_fresh = report.how == "new collection" and not report.written
        self._delete(begun, changes.doubled)
        done = list(self.write(self.writer(begun, is_fresh), changes.upserts))
        self._delete(begun, changes.deletes)
        self.store.settle(begun.collection, self.layout)
        rejected = tuple(one for some in done for one in some.rejected)
        written = sum(some.points for some in done)
        self._demand_few(rejected, written)
        names = np.concatenate([np.empty(0, np.uint64), *(some.names for some in done)])
        repeats = is_fresh and _repeat(names)
        expected = len(names) if is_fresh else changes.points
        count = self.store.count(begun.collection)
        told = replace(
            report,
            points=count,
            written=report.written + written,
            deleted=report.deleted + len(changes.deletes),
            shortened=report.shortened + sum(some.shortened for some in done),
            repeated=max(report.repeated, changes.repeated),
            rejected=rejected,
        )
        return told, not repeats and expected - len(rejected) <= count <= expected

    def _delete(self, begun: Entry, points: pa.Array) -> None:
        most = self.store.bounds.batch_points
        for start in range(0, len(points), most):
            self.store.delete(begun.collection, points.slice(start, most), begun.run)

    def _demand_few(self, rejected: Sequence[Rejected], written: int) -> None:
        share = self.spec.feed.rejected_share
        if len(rejected) > share * (len(rejected) + written):
            first = rejected[0]
            raise StoreFailed(
                f"the store refused {len(rejected):,} of {len(rejected) + written:,} points, more "
                f"than store.feed.rejected_share, {share:g}; the first is {first.id!r}: "
                f"{first.message}"
            )

    def _demand_as_written(
        self, begun: Entry, changes: Changes, rejected: Sequence[Rejected]
    ) -> None:
        """Read some points back.

        Raises:
            StoreDiffers: one is not as it was written.
        """
        most = most_vectors(self.store, self.layout)
        rows = sample(changes.holds, SAMPLE, begun.run)
        refused = {one.point for one in rejected}
        for _, found in deviations(
            self.store, begun.collection, self.snapshot, self.layout, rows, most
        ):
            for one in found:
                if one.point.hex() not in refused:
                    raise StoreDiffers(
                        f"collection {begun.collection!r} does not hold what was written to it: "
                        f"{one.id!r}: {one.what}"
                    )

    def _ended(self, history: History, begun: Entry, report: Report) -> Report:
        """Give readers the collection, and keep the one that they had."""
        if begun.live != begun.collection:
            history.demand_newest(begun)
            self.store.lead(self.spec.collection, begun.collection)
        previous = begun.previous if begun.live == begun.collection else begun.live
        held = Held(
            version=self.snapshot.version,
            fingerprint=self.snapshot.entry.fingerprint,
            points=report.points,
            layout=self.layout,
        )
        kept = {name: one for name, one in begun.held.items() if name == previous}
        ended = history.append(
            begun.next(
                Step.APPLIED,
                live=begun.collection,
                previous=previous,
                held=kept | {begun.collection: held},
                doomed=[name for name in begun.held if name not in (previous, begun.collection)],
                rejected=len(report.rejected),
            )
        )
        for name in ended.doomed:
            self.store.drop(name)
        return replace(report, previous=previous)


def _repeat(names: NDArray[np.uint64]) -> bool:
    # a sort, since `np.unique` takes ten times as long
    ordered = np.sort(names)
    return bool((ordered[1:] == ordered[:-1]).any())


def roll_back(snapshot: Snapshot, spec: VectorStoreSpec, store: VectorStore) -> Entry:
    """Give readers the collection that they got before; the step that says so.

    Args:
        snapshot: any of the dataset.
        spec: of the collection.
        store: connected.

    Raises:
        CollectionError: there is none to go back to.
        Superseded: a backfill has begun meanwhile.
    """
    history = History(snapshot.folder, spec)
    newest, live = history.newest(), live_of(store, spec.collection, snapshot.dataset)
    previous = None if newest is None else newest.previous
    if newest is None or live is None or previous is None or store.owner(previous) is None:
        raise CollectionError(
            f"store.collection: {spec.collection!r} has no collection before the one that it leads "
            "to; fill it from an earlier version with `--older`"
        )
    store.lead(spec.collection, previous)
    back = newest.next(Step.ROLLED_BACK, collection=previous, live=previous, previous=live)
    return history.append(back)
