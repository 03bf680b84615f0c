"""`nightjar jobs`, `logs` and `stop`: the jobs of a cluster, listed, followed and stopped."""

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from jobs.printed import printed
from jobs.progress import CHECKED, Shown
from pipeline.errors import JobEnded, RunError
from pipeline.submission.head import Head, Submitted

_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def show_jobs(head: Head, last: int) -> None:
    """The command `jobs`."""
    jobs = head.jobs()
    if not jobs:
        print(f"no job was submitted to {head.url} yet")
    for job in jobs[-last:]:
        took = "" if job.began is None else f", {_took(job)}"
        to = f" to {job.about.output}" if job.about.output else ""
        what = f"{job.about.command}{to}" if job.about.command else job.entrypoint
        print(printed(f"{job.id}  {job.status}{_with_code(job)}{took}  {what}"))


def show_logs(head: Head, id: str, *, follow: bool) -> None:
    """The command `logs`.

    Raises:
        SpecError: there is no such job.
        JobEnded: it has failed, and was followed.
    """
    if follow:
        ended(head, id, followed(head, id))
        return
    for line in head.said(id):
        print(_plain(line))


def stop(head: Head, id: str) -> None:
    """The command `stop`.

    Raises:
        SpecError: there is no such job.
        RunError: it does not end.
    """
    was = head.job(id)
    if was.has_ended:
        print(f"{id} has {_what(was)} already")
        return
    job = head.stop(id)
    print(
        f"{id} has {_what(job)}; units that were done count, those in flight were dropped; the "
        "same command goes on from there"
    )


def followed(
    head: Head, id: str, *, until_checked: bool = False, as_json: bool = False
) -> Iterator[str]:
    """What a job says as it comes, shown as the command itself would show it here.

    Args:
        head: of its cluster.
        id: of the job.
        until_checked: whether to end as soon as it says that the cluster is fit for it.
        as_json: whether its account is, and all that comes before it is for standard error.
    """
    with Shown() as shown:
        where = sys.stderr if as_json else sys.stdout
        for line in head.follow(id):
            if line == "{":
                where = sys.stdout
            if not shown.take(line):
                print(_plain(line), file=where, flush=True)
            yield line
            if until_checked and line.startswith(CHECKED):
                return


def ended(head: Head, id: str, lines: Iterator[str], *, detached: bool = False) -> None:
    """Wait for the end of what a job says, and for its own.

    Raises:
        JobEnded: it has failed, with its exit code.
        RunError: nobody waits any longer.
    """
    how = f"`nightjar logs {id} --follow --address {head.url}`"
    try:
        for _ in lines:
            pass
    except KeyboardInterrupt:
        raise RunError(f"the job goes on; {how} follows it, `nightjar stop` ends it") from None
    job = head.job(id)
    if not job.has_ended and detached:
        print(f"the job goes on; {how} follows it")
    elif job.status != "succeeded":
        raise JobEnded(f"{id} has {_what(job)}", job.exit_code or 1)


def _plain(line: str) -> str:
    """A line of a log without the colours and tabs that Ray puts there."""
    return printed(_COLOUR.sub("", line).expandtabs())


def _what(job: Submitted) -> str:
    return f"{'been stopped' if job.status == 'stopped' else job.status}{_with_code(job)}"


def _with_code(job: Submitted) -> str:
    return f" (exit code {job.exit_code})" if job.exit_code else ""


def _took(job: Submitted) -> str:
    assert job.began is not None
    seconds = ((job.ended or datetime.now(UTC)) - job.began).total_seconds()
    return f"{job.began:%Y-%m-%d %H:%M:%S} UTC, {seconds:,.0f} s"
