"""Programs take turns, and every turn gives one ratio.

Neighbours on a shared machine slow everyone down for a while, so programs that are compared run
right after one another, the order changes from turn to turn, and the median of the turns' ratios
is reported beside all raw times. Two clocks: wall, and CPU seconds, which neighbours disturb less.
Less, not never: a stolen cache costs CPU seconds too. So every run also says what the rest of the
machine took meanwhile, and a run beside a busy neighbour can be told from one alone.
"""

import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import psutil

CpuClock = Callable[[], float]
"""CPU seconds spent so far, user and system together."""

Program = Callable[[], object]

_LOOK_SECONDS = 0.2
_TICK_SECONDS = 0.01
"""Of the CPU clock of other processes: a tiny run may be shorter."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one run of one program took."""

    wall: float
    """Seconds on the wall."""
    cpu: float
    """CPU seconds of its threads and, with a `TreeClock`, all its processes; a tick at least."""
    others: float
    """CPU seconds that everybody else on the machine took meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as long as the baseline a program takes: the medians over the turns."""

    wall: float
    """Of wall seconds."""
    cpu: float
    """Of CPU seconds."""


Timings = dict[str, list[Timing]]
"""Program -> its runs, one for each turn."""


class TreeClock:
    """CPU seconds of processes and all their descendants, the ended ones among them.

    Ray's workers are nobody's children by the time they end, so the operating system's own sum for
    children misses them. A thread looks at the tree every 0.2 s and remembers the last value of
    each process; what a process spends in the last moment of its life is lost.
    """

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots
        self._seen: dict[tuple[int, float], float] = {}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()

    def __call__(self) -> float:
        """CPU seconds so far."""
        with self._lock:
            for root in self._roots:
                self._look(root)
            return sum(self._seen.values())

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            self()

    def _look(self, root: int) -> None:
        try:
            parent = psutil.Process(root)
            tree = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in tree:
            try:
                times, born = process.cpu_times(), process.create_time()
            except psutil.NoSuchProcess:
                continue
            self._seen[process.pid, born] = times.user + times.system


def interleave(
    programs: Mapping[str, Program], repeats: int, cpu_clock: CpuClock = time.process_time
) -> Timings:
    """Run all programs once a turn, starting with another one in each turn.

    Args:
        programs: by name.
        repeats: how many turns.
        cpu_clock: this process's by default; a `TreeClock` where others work too.
    """
    timings: Timings = {name: [] for name in programs}
    names = list(programs)
    for turn in range(repeats):
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            gc.collect()
            timings[name].append(timed(programs[name], cpu_clock))
    return timings


def timed(program: Program, cpu_clock: CpuClock) -> Timing:
    """Run a program once."""
    wall, cpu, machine = time.perf_counter(), cpu_clock(), _machine_cpu()
    program()
    wall, cpu, machine = time.perf_counter() - wall, cpu_clock() - cpu, _machine_cpu() - machine
    return Timing(wall=wall, cpu=max(cpu, _TICK_SECONDS), others=max(0.0, machine - cpu))


def _machine_cpu() -> float:
    """CPU seconds of all processes since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def ratios(timings: Timings, baseline: str) -> dict[str, Ratio]:
    """Each program against the baseline, turn by turn, then the median."""
    base = timings[baseline]
    return {
        name: Ratio(
            wall=_median_ratio([t.wall for t in runs], [b.wall for b in base]),
            cpu=_median_ratio([t.cpu for t in runs], [b.cpu for b in base]),
        )
        for name, runs in timings.items()
        if name != baseline
    }


def _median_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(v / b for v, b in zip(values, base, strict=True))
