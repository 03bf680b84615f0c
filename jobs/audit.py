"""`nightjar audit`: whether a vector store holds what its snapshot does, and, if asked, repair."""

import json
import random
from dataclasses import asdict, dataclass

from jobs.backfill import backfill_of, opened
from jobs.printed import printed
from pipeline.errors import CollectionError, StoreDiffers
from pipeline.index.audit import Deviation, deviations, sample
from pipeline.index.backfill import Backfill
from pipeline.index.destination import live_of
from pipeline.index.rows import Rows
from pipeline.index.spec import BackfillSpec
from pipeline.index.write import most_vectors

_EXAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found."""

    collection: str
    """That readers get."""
    version: int
    """The snapshot that it was held against."""
    points: int
    """That the store has."""
    expected: int
    """That it should have."""
    to_write: int
    """Rows that are missing in the store, or whose stamp differs."""
    to_delete: int
    """Points that the snapshot has not."""
    doubled: int
    """Points that are there more than once."""
    looked_at: int
    """Rows that were read back and compared whole."""
    deviating: int
    """Of them those that differ."""
    examples: tuple[str, ...]
    """The first of those, in words."""

    @property
    def is_right(self) -> bool:
        """Whether the store holds the snapshot, as far as was looked."""
        return not (self.to_write or self.to_delete or self.doubled or self.deviating)

    def sentence(self) -> str:
        """A short account for a person."""
        told = (
            f"{self.collection}: {self.points:,} points, {self.expected:,} expected of version "
            f"{self.version}"
        )
        if self.is_right:
            return f"{told}; all stamps agree, and {self.looked_at:,} rows that were read back"
        return (
            f"{told}; {self.to_write:,} missing or outdated, {self.to_delete:,} too many, "
            f"{self.doubled:,} there twice; of {self.looked_at:,} rows that were read back "
            f"{self.deviating:,} differ"
        )


def run(spec: BackfillSpec, *, rows: int | None, repair: bool, as_json: bool) -> None:
    """The command.

    Args:
        spec: of the backfill that is audited.
        rows: to be read back and compared whole; None for all.
        repair: whether what is wrong is made right.
        as_json: whether it is printed as JSON.

    Raises:
        StoreDiffers: something is wrong, and was not to be repaired.
    """
    with opened(spec) as (snapshot, store):
        job = backfill_of(spec, snapshot, store, "none")
        audit, wrong = audited(job, rows)
        print(json.dumps(asdict(audit), indent=2) if as_json else audit.sentence())
        if not as_json:
            for example in audit.examples:
                print(printed(example))
        if audit.is_right:
            return
        if not repair:
            raise StoreDiffers(
                f"{spec.store.collection!r} does not hold version {snapshot.version}; `nightjar "
                "audit --repair` makes it right"
            )
        report = job.run(again=wrong)
    if not as_json:
        print(f"repaired: {report.written:,} points written, {report.deleted:,} deleted")


def audited(job: Backfill, rows: int | None) -> tuple[Audit, list[Rows]]:
    """What an audit finds, and the rows that were read back and differ.

    Args:
        job: the backfill that is audited.
        rows: to be read back; None for all.

    Raises:
        CollectionError: nothing was backfilled yet.
    """
    snapshot, store, layout = job.snapshot, job.store, job.layout
    live = live_of(store, job.spec.collection, snapshot.dataset)
    if live is None:
        raise CollectionError(
            f"store.collection: {job.spec.collection!r} leads nowhere yet; `nightjar backfill` "
            "fills it"
        )
    store.demand_fit(live, layout)
    changes = job.reconciled(live)
    count = store.count(live)
    most = snapshot.entry.rows if rows is None else rows
    chosen = sample(changes.holds, most, random.getrandbits(32))
    wrong: list[Rows] = []
    found: list[Deviation] = []
    for some, differing in deviations(
        store, live, snapshot, layout, chosen, most_vectors(store, layout)
    ):
        found += differing
        wrong += [some] if differing else []
    audit = Audit(
        collection=live,
        version=snapshot.version,
        points=count,
        expected=changes.points,
        to_write=changes.rows,
        to_delete=len(changes.deletes),
        doubled=len(changes.doubled),
        looked_at=sum(some.count for some in chosen),
        deviating=len(found),
        examples=tuple(f"{one.id}: {one.what}" for one in found[:_EXAMPLES]),
    )
    return audit, wrong
