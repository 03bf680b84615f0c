"""The driver's side of the protocol: what is done is looked up, the rest is done, all is committed.

    newest entry -> records of the planned units -> units without one are embedded -> look again
                 -> every row accounted for -> next entry, unless somebody was faster -> look again

The order is the guarantee. The newest entry is read before the records are judged, and the commit
claims the version after that entry: whatever was committed or condemned in between makes it fail,
and then everything is judged anew. Units that are done cost a look, so a round too many is cheap.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from pipeline.commit import commit, digest, find_snapshot, reconcile
from pipeline.errors import CommitConflict, RunError
from pipeline.folder import Folder
from pipeline.log import LogEntry, newest_entry, read_condemned
from pipeline.records import Records, Standing
from pipeline.work import Receipt, WorkUnit

_ROUNDS = 10

Execute = Callable[[Sequence[WorkUnit], Mapping[str, int]], Sequence[Receipt]]
"""Embeds units and records them, under the revisions named by key; returns their receipts."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a drive led to."""

    entry: LogEntry
    """The snapshot that holds the work."""
    receipts: list[Receipt] | None
    """Of all units, in the order of the plan; None when the snapshot was there before."""
    resumed: list[Receipt]
    """Of the units that were done before we began."""


def drive(
    folder: Folder,
    units: Sequence[WorkUnit],
    *,
    schema: pa.Schema,
    fingerprint: str,
    execute: Execute,
    accept: Callable[[Sequence[Receipt]], None],
) -> Outcome:
    """See to it that a snapshot of exactly these units is committed.

    Args:
        folder: the dataset's root.
        units: of the plan.
        schema: of the embeddings.
        fingerprint: of every embedding.
        execute: called with the units that are not done.
        accept: called with all receipts before a commit; it raises to refuse them.

    Raises:
        RunError: what was written is not there, or rows are missing.
        CommitConflict: others kept committing to this output.
    """
    records, planned = Records(folder, fingerprint), {u.key(fingerprint): u for u in units}
    source_digest = digest(units, fingerprint)
    resumed: list[Receipt] | None = None
    for _ in range(_ROUNDS):
        newest = newest_entry(folder)
        if entry := find_snapshot(newest, source_digest, fingerprint):
            return Outcome(entry=entry, receipts=None, resumed=[])
        standing = records.standing(planned, read_condemned(folder, newest))
        resumed = list(standing.receipts.values()) if resumed is None else resumed
        if standing.revisions:
            _demand_there(folder, records, _execute_rest(standing, planned, execute), newest)
            continue
        receipts = reconcile(units, standing.receipts, fingerprint)
        accept(receipts)
        with suppress(CommitConflict):
            entry = commit(
                folder,
                schema=schema,
                fingerprint=fingerprint,
                source_digest=source_digest,
                receipts=receipts,
                parent=newest,
            )
            return Outcome(entry=entry, receipts=receipts, resumed=resumed)
    raise CommitConflict(
        f"{folder.uri!r}: others committed {_ROUNDS} times meanwhile; run the same command again"
    )


def _execute_rest(
    standing: Standing, planned: Mapping[str, WorkUnit], execute: Execute
) -> Sequence[Receipt]:
    redone = {unit: revision for unit, revision in standing.revisions.items() if revision}
    return execute([planned[unit] for unit in standing.revisions], redone)


def _demand_there(
    folder: Folder, records: Records, done: Sequence[Receipt], newest: LogEntry | None
) -> None:
    """Look where readers will: a worker may have written to a disk of its own."""
    if newest_entry(folder) != newest:
        # what was written may have been condemned meanwhile
        return
    standing = records.standing([r.unit for r in done], read_condemned(folder, newest))
    if standing.revisions:
        unit = next(iter(standing.revisions))
        raise RunError(
            f"{folder.uri}: unit {unit} was written and is not there; on a cluster output.uri must "
            "be an object store, or a disk that all nodes share"
        )
