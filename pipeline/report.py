"""The account of a run: what went in, what came out, what was set aside, how fast."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from pipeline.log import LogEntry
from pipeline.manifest import Manifest
from pipeline.work import Receipt, tally


@dataclass(frozen=True, kw_only=True)
class PassedOver:
    """Shards that could not be read, a sentence each."""

    lost: tuple[str, ...] = ()
    """Of whose rows the snapshot has none."""
    held: tuple[str, ...] = ()
    """Of which it has the rows of the snapshot before."""

    @classmethod
    def of(cls, unread: Mapping[str, str], manifest: Manifest | None) -> Self:
        """Told apart by what a snapshot was made from.

        Args:
            unread: why, by key of the shard.
            manifest: of the snapshot.
        """
        there = set() if manifest is None else {shard.key for shard in manifest.shards}
        return cls(
            lost=tuple(sorted(why for key, why in unread.items() if key not in there)),
            held=tuple(sorted(why for key, why in unread.items() if key in there)),
        )


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What an embedding run did."""

    dataset: str
    """Root of the dataset."""
    version: int
    """The snapshot that holds the result."""
    published: bool
    """Whether readers get it; after a rollback they may get an earlier one."""
    candidate: bool
    """Whether they have never got it."""
    up_to_date: bool
    """Whether that snapshot was there already, so nothing was done."""
    rows: int
    """Source rows."""
    items: int
    """Embeddings those rows asked for."""
    embedded: dict[str, int]
    """Embeddings, by modality."""
    linked: dict[str, int]
    """Items that got vectors that were there, by modality."""
    quarantined: dict[str, int]
    """Items set aside, by reason."""
    pools: dict[str, int]
    """Embeddings and rejects by adapter."""
    tokens: int
    """Tokens embedded."""
    resumed_rows: int
    """Source rows that an earlier run had done."""
    resumed_tokens: int
    """Their tokens."""
    skipped: tuple[str, ...]
    """Why shards were passed over, a sentence each."""
    held: tuple[str, ...]
    """Likewise of shards whose rows are as they were in the snapshot before."""
    files: int
    """Data files."""
    bytes: int
    """Their size."""
    seconds: float
    """Of the whole run, from opening the checkpoint to the commit."""

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def sentence(self) -> str:
        """A short account for a person."""
        if self.up_to_date:
            text = f"up to date: {self.items:,} rows embedded before, nothing to do"
            if self.seconds:
                text = f"another run has committed the same work first: {self.items:,} rows"
            return text + self._tell_unpublished() + self._tell_unread()
        embedded = sum(self.embedded.values())
        parts = ", ".join(f"{count:,} {name}" for name, count in sorted(self.embedded.items()))
        text = (
            f"{embedded:,} rows embedded{f' ({parts})' if parts else ''}, "
            f"{self.tokens - self.resumed_tokens:,} tokens in {self.seconds:.1f} s"
        )
        if linked := sum(self.linked.values()):
            text += f"; {linked:,} row{'s' * (linked > 1)} got vectors that were there"
        if self.items > self.rows:
            both = self.items - self.rows
            text += f"; {self.rows:,} source rows, {both:,} of them with a text and an image"
        if self.resumed_rows:
            text += f"; {self.resumed_rows:,} source rows had been done by an earlier run"
        if self.quarantined:
            reasons = ", ".join(f"{count:,} {name}" for name, count in self.quarantined.items())
            text += f"; {sum(self.quarantined.values()):,} quarantined ({reasons})"
        return text + self._tell_unpublished() + self._tell_unread()

    def _tell_unpublished(self) -> str:
        if self.published:
            return ""
        what = "is a candidate" if self.candidate else "was rolled back"
        return (
            f"; version {self.version} {what}, and readers get another: `nightjar publish "
            f"{self.dataset} {self.version}` gives it to them"
        )

    def _tell_unread(self) -> str:
        text = ""
        for sentences, became in (
            (self.held, "that could not be read, with rows that are as they were"),
            (self.skipped, "passed over, with rows that this version has not"),
        ):
            if sentences:
                text += f"; {len(sentences):,} shard{'s' * (len(sentences) > 1)} {became}"
        listed = [f"\nas it was: {sentence}" for sentence in self.held]
        listed += [f"\npassed over: {sentence}" for sentence in self.skipped]
        return text + "".join(listed)


def unchanged(
    dataset: str, entry: LogEntry, passed_over: PassedOver, seconds: float = 0.0
) -> RunReport:
    """The report of a run that found its work done: at once, or after so many seconds."""
    return RunReport(
        dataset=dataset,
        version=entry.snapshot,
        published=entry.published == entry.snapshot,
        candidate=entry.candidate,
        up_to_date=True,
        rows=0,
        items=entry.rows,
        embedded={},
        linked={},
        quarantined={},
        pools={},
        tokens=0,
        resumed_rows=0,
        resumed_tokens=0,
        skipped=passed_over.lost,
        held=passed_over.held,
        files=0,
        bytes=0,
        seconds=seconds,
    )


def account(
    receipts: Sequence[Receipt],
    *,
    dataset: str,
    entry: LogEntry,
    resumed: Sequence[Receipt],
    passed_over: PassedOver,
    seconds: float,
) -> RunReport:
    """The report of a run that has committed.

    Args:
        receipts: of all units.
        dataset: its root.
        entry: of the log, which holds the snapshot.
        resumed: those of them that an earlier run had done.
        passed_over: the shards that could not be read.
        seconds: of this run.
    """
    total, earlier = tally(receipts), tally(resumed)
    pools: dict[str, int] = {}
    for receipt in receipts:
        done = receipt.items - sum(receipt.linked.values())
        if done:
            pools[receipt.adapter] = pools.get(receipt.adapter, 0) + done
    files = [receipt.data for receipt in receipts if receipt.data is not None]
    return RunReport(
        dataset=dataset,
        version=entry.snapshot,
        published=entry.published == entry.snapshot,
        candidate=entry.candidate,
        up_to_date=False,
        rows=total.rows,
        items=total.items,
        embedded=dict(total.embedded),
        linked=dict(total.linked),
        quarantined=dict(total.quarantined.most_common()),
        pools=pools,
        tokens=total.tokens,
        resumed_rows=earlier.rows,
        resumed_tokens=earlier.tokens,
        skipped=passed_over.lost,
        held=passed_over.held,
        files=len(files),
        bytes=sum(file.size for file in files),
        seconds=seconds,
    )
