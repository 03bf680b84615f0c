"""A night planned in a process of its own, with its time and the memory that its driver takes.

The memory of a process that has measured before says little: `benchmarks.comparison` asks for each
plan anew. `python -m benchmarks.planned_apart CHECKPOINT SOURCE OUTPUT ADDRESS HEAD` prints a line.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.comparison_corpus import checked_job, job_spec
from benchmarks.memory import forget_highest, highest
from benchmarks.timing import Timing, TreeClock, timed
from jobs.accounts import Account
from jobs.devices import devices
from jobs.nightly import night_of
from pipeline.log import newest_entry
from pipeline.manifest import read_void

_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A night that was planned, and what that took."""

    timing: Timing
    """Of listing the source, comparing it with the snapshot, and saying what is to be done."""
    checked: float
    """Wall seconds of the timing before the comparison: the source listed and cut into units."""
    bytes: int
    """Memory of the driver at its highest, less what it had before."""
    found: dict[str, int]
    """Items carried, new, changed, updated and gone."""


def plan_apart(
    checkpoint: Path, source: Path, output: Path, *, address: str, head: int | None
) -> Planned:
    """Plan a night in a new process.

    Args:
        checkpoint: directory.
        source: folder of the shards.
        output: root of the dataset.
        address: of a running Ray, or `none`.
        head: id of the process whose descendants are that Ray; None for none.
    """
    arguments = [*map(str, (checkpoint, source, output)), address, str(head or "")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.planned_apart", *arguments],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    plain = json.loads(done.stdout.splitlines()[-1])
    return Planned(**plain | {"timing": Timing(**plain["timing"])})


def main(checkpoint: str, source: str, output: str, address: str, head: str) -> None:
    """Plan, and print what it took."""
    processes = [os.getpid(), *([int(head)] if head else [])]
    places = [Path(path) for path in (checkpoint, source, output)]
    spec = job_spec(*places)
    job = checked_job(*places)
    account = Account(command="plan", price=None)
    with (
        TreeClock(processes) as clock,
        devices(spec, job.plan, job.recipes_that_fit(), address, account) as there,
    ):
        found: dict[str, int] = {}
        checked = 0.0
        before = forget_highest()

        def plan() -> None:
            nonlocal checked
            started = time.perf_counter()
            job = checked_job(*places)
            checked = time.perf_counter() - started
            night, newest = night_of(job, there), newest_entry(job.folder)
            night.wanted(newest, read_void(job.folder, newest))
            found.update(asdict(night.counts(newest)))

        timing = timed(plan, clock)
    planned = Planned(timing=timing, checked=checked, bytes=highest() - before, found=found)
    print(json.dumps(asdict(planned)))


if __name__ == "__main__":
    main(*sys.argv[1:])
