"""`nightjar retry`: what was set aside and may go well now, tried once more.

Only faults that do not lie in the row alone are tried by default: an image that was not found, one
too large for the limit of then, memory that did not suffice, a crash. The rows around them are left
as they are. What a row itself lacks is mended in the source, and `nightjar embed` finds the change.
"""

from collections.abc import Sequence

from jobs.accounts import Account
from jobs.embed import CheckedJob, check, finish, report_of
from pipeline.driver import Outcome
from pipeline.errors import MAY_PASS, OutputError, Reason, SpecError
from pipeline.folder import Folder
from pipeline.job_file import kept_job
from pipeline.log import JOB, newest_entry
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
    """
    unknown = [reason for reason in reasons if reason not in set(Reason)]
    if unknown:
        raise SpecError(f"--reason: {unknown[0]!r} is not one of {', '.join(Reason)}")
    chosen = frozenset(reasons or map(str, MAY_PASS))
    account = Account(command="retry", price=price)
    with account.phase("plan"):
        job = check(kept_job(Folder(uri), overrides, storage))
    _demand_its_snapshot(job)
    with account.kept(job.folder, job.spec.name):
        outcome = finish(job, address, account, chosen)
        account.close(report_of(job, outcome, account.seconds))
    print(_account(outcome, chosen, account.seconds))
    print(f"dataset: {uri} (version {outcome.entry.snapshot})")


def _demand_its_snapshot(job: CheckedJob) -> None:
    """Refuse a job of which the snapshot that is there is not: it would be embedded in its place.

    Where nothing was committed the job was refused, or cut off, and may be gone on with.
    """
    newest = newest_entry(job.folder)
    if newest is not None and job.snapshot() is None:
        raise OutputError(
            f"{job.folder.uri!r}: version {newest.snapshot} is not of the job that {JOB} "
            "describes: the source has changed since, another job was begun here, or --set asks "
            "for other work; run `nightjar embed` with the spec that is meant, then retry"
        )


def _account(outcome: Outcome, chosen: frozenset[str], seconds: float) -> str:
    before, after = tally(outcome.resumed), tally(outcome.receipts or [])
    tried = sum(count for reason, count in before.quarantined.items() if reason in chosen)
    if not tried:
        others = ", ".join(before.quarantined)
        more = f"; what was, for {others}, is tried again with --reason" if others else ""
        return f"nothing was set aside for {', '.join(sorted(chosen))}{more}"
    gained = after.embedded.total() - before.embedded.total()
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in after.quarantined.most_common())
    left = f"{after.quarantined.total():,} still set aside ({reasons})" if reasons else "none left"
    items = "item" if tried == 1 else "items"
    return f"{tried:,} {items} tried again, {gained:,} embedded in {seconds:.1f} s; {left}"
