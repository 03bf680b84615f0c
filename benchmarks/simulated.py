"""A hundred million rows, planned, embedded in pretence and committed on this machine.

Two kinds of runs, each with its record. In one process, at the full number of rows and units: the
planner, the driver's protocol, records, manifest, log, and what the night after and a reader do;
once with ids that must differ (`limits.duplicate_ids: refuse`, the default) and once without. With
`--on-ray`, on a Ray of several raylets: as many rows in fewer and larger units, since two cores
have no time for so many tasks; what its driver takes for a unit is the slope. Each step runs in a
process of its own, whose highest memory, CPU seconds, phases and requests to the object store are
recorded. What is real and what is not: `simulation.work` and `simulation.store`.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import describe_run, result_file, written
from benchmarks.setting import Options, checkpoint, options_of, parser, scratch
from benchmarks.simulation.raylets import raylets
from benchmarks.simulation.steps import Setting, Step, step_apart
from benchmarks.simulation.work import Corpus, write_shards

_STEPS = ("embed", "embed again", "nightly", "open")
"""The first embeds everything; to those after it nothing has changed."""
_LOOK_SECONDS = 3.0
_QUICK = Corpus(rows=6000, shards=3, group_rows=500, unit_rows=200, duplicate_ids="refuse")


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=100_000_000, help="of every run")
    made.add_argument("--shards", type=int, default=100)
    made.add_argument("--group-rows", type=int, default=1024, help="rows of a row group")
    made.add_argument("--unit-rows", type=int, default=1024)
    made.add_argument("--on-ray", action="store_true", help="the other kind of runs")
    made.add_argument("--duplicates", nargs="*", default=["refuse", "keep"])
    made.add_argument(
        "--ray-units", type=int, nargs="*", default=[500, 1000, 2000], help="of the same rows"
    )
    made.add_argument("--raylets", type=int, default=2, help="beside the head's")
    made.add_argument("--unit-seconds", type=float, default=0.05, help="of a unit on Ray")
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    simulate = partial(_simulated, options)
    file = result_file("simulated_on_ray" if parsed.on_ray else "simulated", options)
    result = describe_run("simulated", options, {"arguments": _typed(parsed)}) | {"runs": []}
    result["command"] += " --on-ray" * parsed.on_ray
    for corpus in _on_ray(parsed) if parsed.on_ray else _corpora(parsed):
        with _cluster(parsed) as address:
            seconds = parsed.unit_seconds if parsed.on_ray else 0.0
            result["runs"].append(simulate(corpus, address, seconds))
        # now and not at the end: what is measured stays, whatever happens to the next run
        written(result, file)
    return file


def _cluster(parsed: argparse.Namespace) -> AbstractContextManager[str]:
    if parsed.on_ray:
        return raylets(parsed.raylets, cpus=1, gpus=2)
    return nullcontext("none")


def _typed(parsed: argparse.Namespace) -> dict[str, Any]:
    common = {"seed", "threads", "dtype", "repeats", "quick", "cache", "results"}
    return {name: value for name, value in vars(parsed).items() if name not in common}


def _corpora(parsed: argparse.Namespace) -> list[Corpus]:
    """Of the runs in one process."""
    corpus = Corpus(
        rows=parsed.rows,
        shards=parsed.shards,
        group_rows=parsed.group_rows,
        unit_rows=parsed.unit_rows,
        duplicate_ids="",
    )
    corpus = _QUICK if parsed.quick else corpus
    return [replace(corpus, duplicate_ids=choice) for choice in parsed.duplicates]


def _on_ray(parsed: argparse.Namespace) -> list[Corpus]:
    """Of the runs on Ray: a row group, and so a read task, for each unit."""
    return [
        Corpus(
            rows=parsed.rows,
            shards=min(parsed.shards, units),
            group_rows=parsed.rows // units,
            unit_rows=parsed.rows // units,
            duplicate_ids="keep",
        )
        for units in parsed.ray_units
    ]


def _simulated(
    options: Options, corpus: Corpus, address: str, unit_seconds: float
) -> dict[str, Any]:
    """All steps of one run, as the record has them."""
    with scratch(options) as folder:
        write_shards(folder / "source", corpus)
        setting = Setting(
            corpus=corpus,
            checkpoint=str(checkpoint(options)),
            source=str(folder / "source"),
            output=str(folder / "output"),
            address=address,
            unit_seconds=unit_seconds,
        )
        with nullcontext() if address == "none" else _Cluster() as cluster:
            wanted = _STEPS if cluster is None else _STEPS[:1]
            steps = {name: _step(name, setting) for name in wanted}
        return {
            "corpus": asdict(corpus),
            "on_ray": cluster is not None,
            "unit_seconds": unit_seconds,
            "cluster_cpu": None if cluster is None else cluster.as_json(),
            "steps": {name: asdict(step) for name, step in steps.items()},
            "objects": objects(folder / "output"),
        }


def objects(root: Path) -> dict[str, dict[str, int]]:
    """How many objects lie in each folder of a dataset, and their bytes."""
    found: dict[str, dict[str, int]] = {}
    for path in root.rglob("*"):
        if path.is_file():
            folder = found.setdefault(path.relative_to(root).parts[0], {"objects": 0, "bytes": 0})
            folder["objects"] += 1
            folder["bytes"] += path.stat().st_size
    return dict(sorted(found.items()))


def _step(name: str, setting: Setting) -> Step:
    step = step_apart(name.partition(" ")[0], setting)
    print(
        f"{setting.corpus.rows:>13,} rows, {setting.corpus.duplicate_ids:6} "
        f"{'in one process' if setting.address == 'none' else 'on Ray':14} {name:12}"
        f"{step.wall:9.1f} s {step.cpu:9.1f} CPU s {step.highest / 2**20:8,.0f} MiB  {step.found}",
        file=sys.stderr,
    )
    return step


class _Cluster:
    """CPU seconds of this process's descendants: drivers, raylets, workers, and the board's alone.

    Looked at every few seconds: what a process spends between the last look and its end is lost.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], float] = {}
        self._boards: set[tuple[int, float]] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Cluster":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()

    def as_json(self) -> dict[str, float]:
        """By who spent them; the raylets' start is in it."""
        boards = sum(self._seen[process] for process in self._boards)
        return {"all": sum(self._seen.values()), "board": boards}

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            for process in psutil.Process(os.getpid()).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    name = process.pid, process.create_time()
                    times = process.cpu_times()
                    self._seen[name] = times.user + times.system
                    if "ExportedBoard" in " ".join(process.cmdline()):
                        self._boards.add(name)


if __name__ == "__main__":
    main()
