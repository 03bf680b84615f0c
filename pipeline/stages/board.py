"""The board: what workers tell the driver of a run in progress: counts, attempts, what went wrong.

Writers add their receipts, the driver reads. A retried unit may be counted twice here: the counts
are for people to look at, the commit trusts receipts alone. Whoever takes up a unit says so first
and puts it down afterwards, so that a unit whose worker dies is known to have been tried, and one
that never ends is known to be held.
"""

import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.credentials import redact
from pipeline.errors import NightjarError, UnexpectedError
from pipeline.work import Receipt, Tally


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    """The counts so far, by adapter."""
    moves: int = 0
    """Grows with whatever happens."""
    seconds: dict[str, float] = field(default_factory=dict)
    """That workers have spent, all together, by stage."""
    workers: dict[str, int] = field(default_factory=dict)
    """How many have loaded the model, by device."""


class Board:
    """What has been done so far."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._failure: NightjarError | None = None
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._held: dict[tuple[str, str], tuple[str, float]] = {}
        self._done: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._workers: Counter[str] = Counter()
        self._moves = 0

    def take_up(self, stage: str, unit: str, where: str) -> int:
        """A worker begins a stage of a unit: how often somebody has, this time included."""
        self._attempts[stage, unit] += 1
        # what is begun again and again, since it kills whoever begins it, does not move
        self._moves += self._attempts[stage, unit] == 1
        self._held[stage, unit] = (where, time.monotonic())
        return self._attempts[stage, unit]

    def put_down(self, stage: str, unit: str) -> None:
        """A worker has ended a stage of a unit, well or not."""
        self._moves += 1
        held = self._held.pop((stage, unit), None)
        if held is not None:
            self._done[stage] += 1
            self._seconds[stage] += time.monotonic() - held[1]

    @contextmanager
    def holding(self, stage: str, unit: str, where: str) -> Iterator[None]:
        """Take up a stage of a unit, and put it down; for workers of this process."""
        self.take_up(stage, unit, where)
        try:
            yield
        finally:
            self.put_down(stage, unit)

    def enlist(self, device: str) -> None:
        """A worker has loaded the model on a device."""
        self._moves += 1
        self._workers[device] += 1

    def pulse(self) -> None:
        """A worker is getting on within a unit."""
        self._moves += 1

    def add(self, receipt: Receipt) -> None:
        """Count a unit that was written."""
        self._moves += 1
        self._tallies.setdefault(receipt.adapter, Tally()).add(receipt)

    def read(self) -> Progress:
        """How far the run is."""
        return Progress(
            tallies=self._tallies,
            moves=self._moves,
            seconds=dict(self._seconds),
            workers=dict(self._workers),
        )

    def held(self) -> list[str]:
        """What is held by whom and since when, longest first; and what has been done."""
        now = time.monotonic()
        lines = [
            f"{stage} {unit}: held by {where} for {now - since:.0f} s"
            for (stage, unit), (where, since) in sorted(self._held.items(), key=lambda h: h[1][1])
        ]
        done = ", ".join(f"{count} of {stage}" for stage, count in self._done.items())
        return [*(lines or ["no worker holds anything"]), f"ended so far: {done or 'nothing'}"]

    def fail(self, error: NightjarError) -> None:
        """Keep the first failure: what follows is mostly its consequence."""
        self._failure = self._failure or error

    def failure(self) -> NightjarError | None:
        """The first failure."""
        return self._failure


def tellable(error: Exception) -> NightjarError:
    """An exception that travels between processes: ours as it is, another as what it said."""
    if isinstance(error, NightjarError):
        return error
    told = UnexpectedError(redact(f"a worker failed: {type(error).__name__}: {error}"))
    told.add_note(redact("".join(traceback.format_exception(error))))
    return told
