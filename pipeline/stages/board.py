"""The board: what workers tell the driver of a run in progress: counts, attempts, what went wrong.

Writers add their receipts, the driver reads. A unit that was written twice counts once; still the
counts are for people to look at, and the commit trusts receipts alone. Whoever takes up a unit says
so first and puts it down afterwards, so that a unit whose worker dies is known to have been tried,
and one that never ends is known to be held.
"""

import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipeline.credentials import redact
from pipeline.errors import NightjarError, UnexpectedError
from pipeline.stages.queues import Queues
from pipeline.stages.told import DeviceWork, Load, Progress, Seat
from pipeline.work import Receipt, Tally

_LIVES_SECONDS = 30.0
"""For which a worker is taken to live after it has last told what it has done; it does so every
five."""


class Board:
    """What has been done so far."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._failure: NightjarError | None = None
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._held: dict[tuple[str, str], tuple[str, float]] = {}
        self._done: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._loads: list[Load] = []
        self._queues = Queues()
        self._planned: Counter[tuple[str, str]] = Counter()
        self._retries: Counter[tuple[str, str]] = Counter()
        self._embedded_on: dict[str, str] = {}
        self._added: set[str] = set()
        self._written: dict[tuple[Seat, str], Tally] = {}
        self._work: dict[tuple[str, Seat], tuple[DeviceWork, float]] = {}
        self._moves = 0

    def expect(self, pool: str, adapter: str, units: Mapping[str, int]) -> None:
        """A pool is to embed units with an adapter: their source rows, by key."""
        self._queues.expect(pool, units)
        self._planned[pool, adapter] += sum(units.values())

    def take_up(self, stage: str, unit: str, where: str, host: str = "") -> int:
        """A worker begins a stage of a unit: how often somebody has, this time included."""
        self._queues.begin(stage, unit)
        if stage == "embed":
            self._embedded_on[unit] = host
        self._attempts[stage, unit] += 1
        # what is begun again and again, since it kills whoever begins it, does not move
        again = self._attempts[stage, unit] > 1
        self._moves += not again
        if again:
            self._retries[self._queues.pool(unit), stage] += 1
        self._held[stage, unit] = (where, time.monotonic())
        return self._attempts[stage, unit]

    def put_down(self, stage: str, unit: str) -> None:
        """A worker has ended a stage of a unit, well or not."""
        self._moves += 1
        held = self._held.pop((stage, unit), None)
        if held is not None:
            self._done[stage] += 1
            self._seconds[stage] += time.monotonic() - held[1]
        if stage != "source":
            self._queues.end(stage, unit)

    def has_read(self, unit: str) -> None:
        """A worker hands on a unit that it has read, perhaps the first of several it has opened."""
        self._queues.end("source", unit)

    @contextmanager
    def holding(self, stage: str, unit: str, where: str) -> Iterator[None]:
        """Take up a stage of a unit, and put it down; for workers of this process."""
        self.take_up(stage, unit, where)
        try:
            yield
        finally:
            self.put_down(stage, unit)

    def enlist(self, load: Load) -> None:
        """A worker has loaded the model."""
        self._moves += 1
        self._loads.append(load)

    def worked(self, worker: str, seat: Seat, work: DeviceWork) -> None:
        """What a worker's device has done in all, told again and again while it lives."""
        for pool, adapter in self._planned:
            if pool == seat.pool:
                self._written.setdefault((seat, adapter), Tally())
        earlier, _ = self._work.get((worker, seat), (DeviceWork(), 0.0))
        # its threads may overtake each other
        newer = max(earlier, work, key=lambda told: told.held_seconds)
        self._work[worker, seat] = (newer, time.monotonic())

    def pulse(self) -> None:
        """A worker is getting on within a unit."""
        self._moves += 1

    def add(self, receipt: Receipt) -> None:
        """Count a unit that was written."""
        self._moves += 1
        if receipt.unit in self._added:
            return
        self._added.add(receipt.unit)
        self._tallies.setdefault(receipt.adapter, Tally()).add(receipt)
        host = self._embedded_on.pop(receipt.unit, "")
        seat = Seat(pool=self._queues.pool(receipt.unit), host=host)
        self._written.setdefault((seat, receipt.adapter), Tally()).add(receipt)

    def read(self) -> Progress:
        """How far the run is."""
        now = time.monotonic()
        devices: defaultdict[Seat, DeviceWork] = defaultdict(DeviceWork)
        living: Counter[Seat] = Counter()
        for (_, seat), (work, told) in self._work.items():
            devices[seat] += work
            living[seat] += now - told < _LIVES_SECONDS
        return Progress(
            tallies=dict(self._tallies),
            moves=self._moves,
            seconds=dict(self._seconds),
            workers=Counter(load.device for load in self._loads),
            loads=tuple(self._loads),
            written=dict(self._written),
            devices=dict(devices),
            living=dict(living),
            planned=dict(self._planned),
            waiting=self._queues.waiting(),
            retries=dict(self._retries),
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
