"""What is said of a snapshot with too much set aside, and of one that readers do not get."""

from collections.abc import Sequence
from itertools import islice

from jobs.printed import printed
from pipeline.commit import Snapshot
from pipeline.dataset import read_quarantine
from pipeline.errors import RunError, SnapshotRefused
from pipeline.folder import Folder
from pipeline.log import newest_entry
from pipeline.spec import JobSpec
from pipeline.verdict import PUBLISHED, Verdict, demand_healthy
from pipeline.work import Receipt

_EXAMPLES = 3
"""Items to name of those that were set aside."""


def accept(
    folder: Folder, spec: JobSpec, snapshot: Snapshot, receipts: Sequence[Receipt]
) -> Verdict:
    """Refuse too large a quarantine, and name some of what is in it: nothing else would.

    Raises:
        RunError: says how much was set aside, and its notes name some of it.
    """
    try:
        demand_healthy(snapshot.manifest, receipts, spec.limits)
    except RunError as error:
        for row in islice(read_quarantine(folder, receipts), _EXAMPLES):
            message, locator = printed(row["message"]), printed(row["locator"])
            error.add_note(f"  {row['reason']}: {message}\n    {locator}")
        raise
    newest = newest_entry(folder)
    if newest is not None and newest.is_refused:
        # the vectors that the gate has refused are in this one too
        return Verdict(publish=False, refused=tuple(newest.refused), quality={})
    return PUBLISHED


def demand_passed(folder: Folder, version: int) -> None:
    """Fail when readers do not get a snapshot because the gate refused it.

    Raises:
        SnapshotRefused: its notes say why, and what may be done.
    """
    newest = newest_entry(folder)
    if newest is None or not newest.is_refused or newest.snapshot != version:
        return
    readers = f"version {newest.published}" if newest.published else "none"
    error = SnapshotRefused(f"version {version} is a candidate, and readers get {readers}:")
    for reason in newest.refused:
        error.add_note(f"  {reason}")
    error.add_note(
        f"`nightjar show {folder.uri} --version {version}` reads it, and `nightjar publish "
        f"{folder.uri} {version}` gives it to readers all the same"
    )
    error.add_note(
        f"`nightjar rollback {folder.uri} {newest.published}` discards it: what it has added is "
        "embedded anew by the next night; without that the next night uses its vectors again"
    )
    raise error
