"""Who goes on, and what happens to each call: threads that hand one baton round, by a seed."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from tests.simulation.store import SimulatedFolder, Store

_WAIT_SECONDS = 60.0
_STAYS = (0.0, 0.6, 0.9, 0.97)
"""How likely it is that the process of the last step takes the next."""


class Killed(BaseException):
    """The process is gone: no handler for ordinary errors may see it."""


class StoreFailure(OSError):
    """The store, or the way to it, failed."""


@dataclass(frozen=True, kw_only=True)
class Odds:
    """How often a call meets which fate, and how often a listing is an old one."""

    fail_before: float = 0.03
    fail_after: float = 0.03
    kill_before: float = 0.01
    kill_after: float = 0.01
    stale: float = 0.0


PEACE = Odds(fail_before=0, fail_after=0, kill_before=0, kill_after=0)
_OLDEST = 12
"""Changes by which a stale listing lags behind at most."""

_FATES = ("fail_before", "fail_after", "kill_before", "kill_after")
Fate = str
"""ok, fail_before, fail_after, kill_before or kill_after."""


@dataclass(kw_only=True)
class Process:
    """A program in a thread of its own, which waits at every call of the store."""

    name: str
    program: Callable[[SimulatedFolder], object]
    ready: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    fate: Fate = "ok"
    waits_for: tuple[str, str] = ("", "")
    ended: bool = False
    result: object = None
    error: BaseException | None = None


class Schedule:
    """Runs processes step by step against one store."""

    def __init__(self, store: Store, seed: int, odds: Odds, check: Callable[[], None]) -> None:
        """Make a schedule.

        Args:
            store: shared by all.
            seed: decides everything that is left open.
            odds: of faults.
            check: called after every step; it raises when the store is not as it must be.
        """
        self.store, self._odds, self._check = store, odds, check
        self._random = Random(seed)
        self.steps: list[str] = []
        """What happened, for the message of a failure."""

    def run(
        self,
        programs: Mapping[str, Callable[[SimulatedFolder], object]],
        fates: Mapping[int, Fate] | None = None,
        turns: Iterable[str] = (),
    ) -> dict[str, Process]:
        """Run programs until all have ended.

        Args:
            programs: by name.
            fates: of single steps by number, instead of the odds.
            turns: names of those who take the first steps; after that chance decides.
        """
        processes = [Process(name=name, program=p) for name, p in programs.items()]
        for process in processes:
            threading.Thread(target=self._live, args=(process,), daemon=True).start()
            self._await(process)
        # how long one goes on while the others stall differs from schedule to schedule
        stays, process = self._random.choice(_STAYS), processes[0]
        first = iter(turns)
        while alive := [process for process in processes if not process.ended]:
            name = next(first, None)
            if name is not None:
                process = next((each for each in alive if each.name == name), alive[0])
            elif process.ended or self._random.random() >= stays:
                process = self._random.choice(alive)
            fate = self._fate() if fates is None else fates.get(len(self.steps), "ok")
            self.steps.append(f"{process.name} {' '.join(process.waits_for)} {fate}")
            process.fate = fate
            stale = self._random.random() < self._odds.stale
            self.store.age = self._random.randint(1, _OLDEST) if stale else 0
            process.ready.clear()
            process.go.set()
            self._await(process)
            self.store.age = 0
            self._check()
        return {process.name: process for process in processes}

    def _await(self, process: Process) -> None:
        if not process.ready.wait(_WAIT_SECONDS):
            raise RuntimeError(f"{process.name} neither asks for a step nor ends")

    def _live(self, process: Process) -> None:
        def turn(operation: str, name: str) -> Callable[[], None]:
            process.waits_for = (operation, name)
            process.ready.set()
            process.go.wait()
            process.go.clear()
            if process.fate == "kill_before":
                raise Killed
            if process.fate == "fail_before":
                raise StoreFailure(f"{operation} {name}: refused")
            return applied

        def applied() -> None:
            if process.fate == "kill_after":
                raise Killed
            if process.fate == "fail_after":
                raise StoreFailure(f"{process.waits_for}: the reply was lost")

        try:
            process.result = process.program(SimulatedFolder(self.store, turn))
        except BaseException as error:
            process.error = error
        process.ended = True
        process.ready.set()

    def _fate(self) -> Fate:
        drawn = self._random.random()
        for fate in _FATES:
            odds = getattr(self._odds, fate)
            if drawn < odds:
                return fate
            drawn -= odds
        return "ok"
