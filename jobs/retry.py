"""`nightjar retry`: what was set aside and may go well now, tried once more.

Only faults that do not lie in the row alone are tried by default: an image that was not found, one
too large for the limit of then, memory that did not suffice, a crash. It is a night in which what
was set aside is all that has changed: the rows around it are carried as they are, unread, and what
results is judged as a night's is. What a row itself lacks is mended in the source, and the next
night finds the change.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from jobs.accounts import Account
from jobs.devices import Devices
from jobs.embed import CheckedJob, check, report_of
from jobs.nightly import (
    NightReport,
    finish,
    keeps_gone,
    night_of,
    queries_of,
)
from jobs.verdicts import demand_passed
from pipeline.driver import Outcome
from pipeline.errors import MAY_PASS, OutputError, Reason, SpecError
from pipeline.folder import Folder
from pipeline.job_file import kept_job
from pipeline.log import JOB, LogEntry, newest_entry
from pipeline.manifest import read_manifest
from pipeline.nightly.aside import reasons_in
from pipeline.nightly.before import Before
from pipeline.nightly.night import Night
from pipeline.stores import StoreSpec
from pipeline.work import tally


def run(
    uri: str,
    overrides: Sequence[str],
    address: str,
    *,
    reasons: Sequence[str],
    storage: Sequence[StoreSpec],
    price: float | None,
) -> None:
    """The command.

    Args:
        uri: root of the dataset.
        overrides: `key=value` settings that win over the job that made it.
        address: which Ray, or `none`.
        reasons: those to try again; none for all that may pass.
        storage: how stores are reached.
        price: of a device for an hour, for the account of the run.

    Raises:
        UserError: there is no job at the output, it cannot be done any more, or it is not the one
            whose snapshot is there.
        RunError: the run failed; nothing was committed.
        SnapshotRefused: the gate did not give the snapshot to readers.
    """
    unknown = [reason for reason in reasons if reason not in set(Reason)]
    if unknown:
        raise SpecError(f"--reason: {unknown[0]!r} is not one of {', '.join(Reason)}")
    chosen = frozenset(reasons or map(str, MAY_PASS))
    account = Account(command="retry", price=price)
    with account.phase("plan"):
        job = check(kept_job(Folder(uri), overrides, storage))
        queries = queries_of(job)
    newest = _its_snapshot(job)
    with account.kept(job.folder, job.spec.name):
        before = _set_aside(job, newest)
        planned = partial(_night, newest, chosen)
        outcome, _, findings = finish(job, queries, address, account, planned)
        report = report_of(job, outcome, account.seconds)
        account.close(report, **NightReport(run=report, counts=None, findings=findings).more())
    print(_account(job.folder, before, outcome, chosen, account.seconds))
    print(f"dataset: {uri} (version {outcome.entry.snapshot})")
    demand_passed(job.folder, outcome.entry.snapshot)


def _its_snapshot(job: CheckedJob) -> LogEntry | None:
    """The snapshot that is there, provided that it is of the job: another would be replaced.

    Where nothing was committed (None) the job was refused, or cut off, and may be gone on with.

    Raises:
        OutputError: it is of another job, or of a source that has changed since.
    """
    newest = newest_entry(job.folder)
    of_a_night = job.made(keep_gone=keeps_gone(job.spec), unread=job.plan.unread)
    if newest is not None and of_a_night is None and job.made() is None:
        raise OutputError(
            f"{job.folder.uri!r}: version {newest.snapshot} is not of the job that {JOB} "
            "describes: the source has changed since, another job was begun here, or --set asks "
            "for other work; run `nightjar nightly` with the spec that is meant, then retry"
        )
    return newest


def _night(
    newest: LogEntry | None, chosen: frozenset[str], job: CheckedJob, there: Devices
) -> Night:
    night = night_of(job, there)
    # `embed` names the same work in another way, and it is to find it done
    digest = night.source_digest if newest is None else newest.source_digest
    return replace(night, again=chosen, source_digest=digest)


def _set_aside(job: CheckedJob, newest: LogEntry | None) -> Counter[str] | None:
    """What the snapshot that is there has set aside, by reason; None where there is none."""
    if newest is None:
        return None
    shards = [shard.key for shard in job.plan.shards]
    return reasons_in(job.folder, Before.mended(job.folder, newest, shards).manifest)


def _account(
    folder: Folder,
    before: Counter[str] | None,
    outcome: Outcome,
    chosen: frozenset[str],
    seconds: float,
) -> str:
    after = reasons_in(folder, read_manifest(folder, outcome.entry.manifest))
    left_of_them = after
    if before is None:
        # what was set aside before is known of the units that were done
        before = tally(outcome.resumed).quarantined
        done = {receipt.unit for receipt in outcome.resumed}
        left_of_them = tally(r for r in outcome.receipts or () if r.unit in done).quarantined
    tried = sum(count for reason, count in before.items() if reason in chosen)
    new = tally(outcome.receipts or ()).tokens - tally(outcome.resumed).tokens
    if not tried and new:
        rows = sum(tally(outcome.receipts or ()).embedded.values())
        return f"{rows:,} rows of which the files were gone or cut are embedded again"
    if not tried:
        others = ", ".join(before)
        more = f"; what was, for {others}, is tried again with --reason" if others else ""
        return f"nothing was set aside for {', '.join(sorted(chosen))}{more}"
    gained = max(before.total() - left_of_them.total(), 0)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in after.most_common())
    left = f"{after.total():,} still set aside ({reasons})" if reasons else "none left"
    items = "item" if tried == 1 else "items"
    return f"{tried:,} {items} tried again, {gained:,} embedded in {seconds:.1f} s; {left}"
