"""How soon pools are at work, and what a second node brings, with pretended GPUs.

Devices are not there: an actor that was given one sleeps while it loads the model and while it
embeds a unit (`benchmarks/pretended/`). So a machine of two cores has as many of them as a rack,
and what is measured is the time that is ours and Ray's.

- From the moment that a job is submitted to a cluster through its Jobs API until each of 1 to 8
  actors has begun its first unit, beside the time that one actor takes to load.
- Units a second of a run on one node, and of the same run when a second node has joined it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.deeds import PRETENDED, Deed, deeds
from benchmarks.ray_head import ray_head, ray_node
from benchmarks.record import describe_run, result_file
from benchmarks.setting import TASK, Options, checkpoint, options_of, parser, scratch

_UNIT_ROWS = 4
_OBJECT_STORE = 200_000_000
_SHORT_LOAD = 5.0
"""Seconds to load the model where that is not what is measured."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What is pretended."""

    load: float
    """Seconds to load the model, beside what a tiny one takes."""
    unit: float
    """Seconds of a unit, likewise."""


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--load", type=float, default=60.0, help="seconds to load the model")
    made.add_argument("--unit", type=float, default=2.0, help="seconds of a unit")
    made.add_argument("--actors", type=int, nargs="*", default=[1, 2, 4, 8])
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    quick = options.quick
    service = Service(load=2.0 if quick else parsed.load, unit=0.5 if quick else parsed.unit)
    actors = [1] if quick else parsed.actors
    record = describe_run("elastic", options, vars(service) | {"actors": actors})
    record["until_busy"] = [
        _until_busy(options, service, count) for count in actors for _ in range(options.repeats)
    ]
    record["second_node"] = [_second_node(options, service) for _ in range(options.repeats)]
    file = result_file("elastic", options)
    file.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {os.path.relpath(file)}")
    return file


def _until_busy(options: Options, service: Service, actors: int) -> dict[str, Any]:
    with scratch(options) as folder, _pretended(folder, service):
        with ray_head(options.threads, _OBJECT_STORE, gpus=actors, dashboard=True) as head:
            spec, submitted = _spec(folder, options, 6 * actors), time.time()
            _demand_done(_submit(spec, head.dashboard))
        firsts: dict[str, Deed] = {}
        for deed in deeds(folder / "log", "begun"):
            firsts.setdefault(deed.actor, deed)
    seconds = sorted(deed.when - submitted for deed in firsts.values())
    found = {
        "actors": actors,
        "busy": seconds,
        "times_one_load": seconds[actors - 1] / service.load,
    }
    print(
        f"{actors} actors busy after {seconds[actors - 1]:.1f} s, "
        f"{found['times_one_load']:.2f} times the load of one"
    )
    return found


def _second_node(options: Options, service: Service) -> dict[str, Any]:
    units = 120
    quickly = Service(load=_SHORT_LOAD, unit=service.unit)
    with scratch(options) as folder, _pretended(folder, quickly):
        log = folder / "log"
        with ray_head(options.threads, _OBJECT_STORE, gpus=1, dashboard=True) as head:
            job = _submit(_spec(folder, options, units), head.dashboard)
            while len(deeds(log, "unit")) < units // 4:
                _demand_running(job)
            with ray_node(head, options.threads, 1, _OBJECT_STORE):
                _demand_done(job)
        return rates(deeds(log, "unit"))


def rates(done: Sequence[Deed]) -> dict[str, Any]:
    """Units a second while one node was at work, and while two were."""
    first = done[0].node
    joined = next((deed.when for deed in done if deed.node != first), None)
    if joined is None:
        raise SystemExit("the second node was never used: the run was too short")
    # the last units are those of a pool that has no more
    ends = [
        max(d.when for d in done if (d.node == first) == is_first) for is_first in (True, False)
    ]
    alone = [deed.when for deed in done if deed.when < joined]
    both = [deed.when for deed in done if joined <= deed.when <= min(ends)]
    rates = [(len(some) - 1) / (some[-1] - some[0]) for some in (alone, both)]
    found = {"alone": rates[0], "both": rates[1], "gain": rates[1] / rates[0]}
    print(
        f"{rates[0]:.2f} units a second on one node, {rates[1]:.2f} on two: x {found['gain']:.2f}"
    )
    return found


@contextmanager
def _pretended(folder: Path, service: Service) -> Iterator[None]:
    """Within it processes that are started here, and Ray's workers, pretend."""
    (folder / "log").mkdir()
    root = Path(__file__).parent.parent
    wanted = {
        "PYTHONPATH": f"{PRETENDED}{os.pathsep}{root}",
        "PRETENDED_LOAD": str(service.load),
        "PRETENDED_UNIT": str(service.unit),
        "PRETENDED_LOG": str(folder / "log"),
        "RAY_idle_worker_killing_time_threshold_ms": "60000",
        # whose `python` a job is run by
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _spec(folder: Path, options: Options, units: int) -> Path:
    ids = [f"row-{number}" for number in range(units * _UNIT_ROWS)]
    pq.write_table(pa.table({"id": ids, "text": ids}), folder / "rows.parquet")
    spec = {
        "name": "elastic",
        "model": {"path": str(checkpoint(options)), "dtype": options.dtype},
        "source": {
            "uri": str(folder / "rows.parquet"),
            "format": "parquet",
            "id": "id",
            "text": "text",
            "task": TASK,
        },
        "output": {"uri": str(folder / "out")},
        "compute": {"unit_rows": _UNIT_ROWS},
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return path


def _submit(spec: Path, address: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "jobs.cli", "submit", str(spec), "--address", address]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _demand_running(job: subprocess.Popen[bytes]) -> None:
    try:
        job.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return
    raise SystemExit(f"the job ended too soon, with exit code {job.returncode}")


def _demand_done(job: subprocess.Popen[bytes]) -> None:
    if job.wait():
        raise SystemExit(f"the job failed, with exit code {job.returncode}")


if __name__ == "__main__":
    main()
