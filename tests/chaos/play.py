"""A round played: the command is run, its processes are killed, until it has exited with 0.

A run that is not killed must end well by itself, whatever dies under it, and must end at all. What
happened is kept line by line, for the round that fails.
"""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.nodes import Nodes
from tests.chaos.schedule import Scene, Schedule, Strike, Victim

_LOOK_SECONDS = 0.1
_LONGEST_RUN = 240.0
"""Seconds of a run, above which it hangs."""


@dataclass(kw_only=True)
class Round:
    """What became of a schedule."""

    schedule: Schedule
    lines: list[str] = field(default_factory=list)
    """What happened, in order."""
    kills: Counter[Victim] = field(default_factory=Counter)
    """Processes and nodes killed, by kind."""
    runs: int = 0
    """Drivers started."""
    started: float = field(default_factory=time.monotonic)

    def tell(self, line: str) -> None:
        """One line more of what happened."""
        self.lines.append(f"{time.monotonic() - self.started:6.1f} s  {line}")

    def __str__(self) -> str:
        return "\n".join([str(self.schedule), *self.lines])


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a round is played."""

    nodes: Nodes
    """The cluster."""
    spec: Path
    """Of the job."""
    environment: Mapping[str, str]
    """Of the drivers."""
    logs: Path
    """A directory for what drivers say."""
    share_done: Callable[[], float]
    """The share of the units that have a record."""


def play(schedule: Schedule, stage: Stage) -> Round:
    """Run the command until it has exited with 0, killing as the schedule says.

    Raises:
        AssertionError: a run failed by itself, or never ended.
    """
    played, pending = Round(schedule=schedule), list(schedule.strikes)
    while True:
        codes = _run(played, pending, stage)
        played.tell(f"exit codes {codes}")
        assert set(codes) <= {0, -signal.SIGKILL}, f"a run failed\n{played}\n{_said(stage)}"
        if 0 in codes:
            break
    if pending:
        played.tell(f"never came: {', '.join(map(str, pending))}")
    stage.nodes.demand_whole()
    stage.nodes.demand_idle()
    return played


def _run(played: Round, pending: list[Strike], stage: Stage) -> list[int]:
    """One run, or two at once; their exit codes."""
    drivers = [_start(played, stage, stage.nodes.address)]
    rivals = int(played.schedule.scene is Scene.RACE and played.runs == 1)
    deadline, due = time.monotonic() + _LONGEST_RUN, None
    try:
        while rivals or any(driver.poll() is None for driver in drivers):
            if time.monotonic() > deadline:
                workers = "\n".join(stage.nodes.names())
                raise AssertionError(f"a run hangs\n{played}\n{workers}\n{_said(stage)}")
            # asked only when it matters: a store in the same process has enough to do
            share = stage.share_done() if rivals or (pending and due is None) else 1.0
            if rivals and (share > 0 or drivers[0].poll() is not None):
                # by then both are at work: one without Ray has begun long before one on Ray
                drivers.append(_start(played, stage, "none"))
                rivals = 0
            if pending and due is None and share >= pending[0].after:
                due = time.monotonic() + pending[0].pause
            if (
                due is not None
                and time.monotonic() >= due
                and _strike(played, pending[0], stage, drivers)
            ):
                del pending[0]
                due = None
            time.sleep(_LOOK_SECONDS)
    finally:
        for driver in drivers:
            driver.kill()
    return [driver.wait() for driver in drivers]


def _start(played: Round, stage: Stage, address: str) -> subprocess.Popen[bytes]:
    played.runs += 1
    command = [sys.executable, "-m", "jobs.cli", "embed", str(stage.spec), "--address", address]
    with (stage.logs / f"driver-{played.runs}.log").open("wb") as log:
        driver = subprocess.Popen(command, env=stage.environment, stdout=log, stderr=log)
    played.tell(f"started driver {driver.pid} on {address}")
    return driver


def _strike(
    played: Round, strike: Strike, stage: Stage, drivers: Sequence[subprocess.Popen[bytes]]
) -> bool:
    """Whether there was somebody to kill."""
    if strike.victim is Victim.DRIVER:
        running = [driver for driver in drivers if driver.poll() is None]
        chosen = running[int(strike.place * len(running)) :][:1]
        for driver in chosen:
            driver.kill()
        killed = [str(driver.pid) for driver in chosen]
    else:
        killed = stage.nodes.kill(strike.victim, 2 if strike.twice else 1, strike.place)
    if killed:
        played.kills[strike.victim] += len(killed)
        played.tell(f"killed {strike.victim} {', '.join(killed)} at {stage.share_done():.0%}")
    return bool(killed)


def _said(stage: Stage) -> str:
    """What the drivers said, their ends."""
    logs = sorted(stage.logs.glob("driver-*.log"))
    return "\n".join(f"{log.name}: {log.read_text()[-3000:]}" for log in logs)
