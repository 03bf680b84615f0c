"""The verdict on a snapshot that is whole: readers get it, it is a candidate, or it is nothing.

A candidate is committed like any other and can be read by its version; only a reader who names none
does not get it, until `nightjar publish` says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.errors import RunError
from pipeline.manifest import Manifest
from pipeline.spec import LimitsSpec
from pipeline.work import Receipt, tally


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether readers get a snapshot."""

    publish: bool
    """As soon as it is committed; else it is a candidate."""
    refused: tuple[str, ...] = ()
    """Why the gate did not let it through, a sentence each."""
    quality: Mapping[str, float | str] = field(default_factory=dict)
    """How well queries find their documents in it; empty for not asked."""


PUBLISHED = Verdict(publish=True)


def set_aside_too_much(
    manifest: Manifest, receipts: Sequence[Receipt], limits: LimitsSpec
) -> str | None:
    """How much of a snapshot was set aside, and why, when that is more than the limit; else None.

    So much is more often a fault of the run than of the rows.

    Args:
        manifest: of the snapshot.
        receipts: of what was done for it.
        limits: of the job.
    """
    aside, items = manifest.quarantined, manifest.rows + manifest.quarantined
    quarantined = tally(receipts).quarantined
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in quarantined.most_common())
    if aside and not manifest.rows:
        return f"all {items:,} items were quarantined ({reasons})"
    if aside and aside / items > limits.quarantine_share:
        return (
            f"limits.quarantine_share: {limits.quarantine_share:g}, but {aside / items:.2%} of the "
            f"{items:,} items were quarantined ({reasons})"
        )
    return None


def demand_healthy(manifest: Manifest, receipts: Sequence[Receipt], limits: LimitsSpec) -> None:
    """Refuse to commit a snapshot with too much set aside; the arguments are as above.

    Raises:
        RunError: says how much was set aside and why, and the way out.
    """
    too_much = set_aside_too_much(manifest, receipts, limits)
    if too_much is not None:
        raise RunError(
            f"{too_much}; nothing was committed; mend the source, or raise the limit and run the "
            "same command again: what is embedded is kept"
        )
