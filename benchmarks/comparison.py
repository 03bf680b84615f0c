"""What it costs to find out what has changed: the planning of a night, and the comparison alone.

Planning is what `nightjar plan` and `nightjar nightly` do before anything is embedded: shards are
listed, those that have changed are read and hashed, and compared with what the snapshot has. It is
measured where no shard has changed, where all were written anew with the same rows, and where one
row in ten has another text, which tells what the driver holds of a row that has changed. The
comparison alone is of signs made from numbers, as many as memory allows: no source is read there,
and one row in a hundred has changed.

A row is one of the source with the one of the snapshot that it is compared with. What a billion
would take is ten or a thousand times what was measured, and no more is known of it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from benchmarks import compared_signs
from benchmarks.comparison_corpus import checked_job, commit_random_vectors, write_shards
from benchmarks.planned_apart import Planned, plan_apart
from benchmarks.ray_head import Head, ray_head
from benchmarks.record import describe_run, result_file
from benchmarks.setting import Options, checkpoint, options_of, parser, scratch
from benchmarks.timing import Timing

HERE, ON_RAY = "in one process", "on Ray"
SAME, REWRITTEN, CHANGED = (
    "planning, no shard has changed",
    "planning, all shards rewritten with the same rows",
    "planning, one row in ten has another text",
)
ALONE = "comparing signs alone, one in a hundred changed"
_CHANGED = 10
_OBJECT_STORE = 6_000_000_000
"""Bytes, for the largest comparison: what a cluster of several nodes has together."""
_BILLION = 1_000_000_000


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=1_000_000, help="of the nights that are planned")
    made.add_argument("--signs", type=int, default=10_000_000, help="of the comparison alone")
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    rows, signs = (2_000, 5_000) if options.quick else (parsed.rows, parsed.signs)
    with ExitStack() as stack:
        head = stack.enter_context(ray_head(options.threads, object_store=_OBJECT_STORE))
        folder = stack.enter_context(scratch(options))
        planned = _plan(options, folder, rows, head)
        compared = compared_signs.measure(signs, options, head)
    timings = {
        name: {way: [plan.timing for plan in plans] for way, plans in found.items()}
        for name, found in planned.items()
    } | {ALONE: {HERE: compared.here, ON_RAY: compared.on_ray}}
    sizes = dict.fromkeys(planned, rows) | {ALONE: signs}
    # not `comparisons`: both ways are ours, and no ratio of theirs says anything
    result = describe_run("comparison", options, {"planned_rows": rows, "signs": signs}) | {
        "timings": {
            name: {way: [asdict(run) for run in runs] for way, runs in found.items()}
            for name, found in timings.items()
        },
        "found": {name: found[HERE][0].found for name, found in planned.items()},
        "seconds_before_the_comparison": {
            name: min(plan.checked for plan in found[HERE]) for name, found in planned.items()
        },
        "driver_bytes_per_row": _memory(planned, rows) | {ALONE: compared.bytes_per_row},
        "shuffled_bytes_per_row": compared.shuffled,
        "a_billion_rows": _extrapolated(timings, sizes, compared.shuffled),
    }
    file = result_file("comparison", options)
    file.write_text(json.dumps(result, indent=1) + "\n")
    _print_table(timings)
    print(f"written: {os.path.relpath(file)}")
    return file


def _plan(
    options: Options, folder: Path, rows: int, head: Head
) -> dict[str, dict[str, list[Planned]]]:
    """Plan each of the three nights, here and on Ray in turns."""
    # any checkpoint will do: none is loaded
    tiny = checkpoint(replace(options, quick=True))
    source, output, shards = folder / "source", folder / "output", 16
    write_shards(source, rows, shards)
    commit_random_vectors(checked_job(tiny, source, output))
    ways = {
        HERE: partial(plan_apart, address="none", head=None),
        ON_RAY: partial(plan_apart, address=head.address, head=head.process),
    }
    found: dict[str, dict[str, list[Planned]]] = {}
    for turn, (name, changed) in enumerate(((SAME, None), (REWRITTEN, None), (CHANGED, _CHANGED))):
        if turn:
            write_shards(source, rows, shards, turn=turn, changed=changed)
        found[name] = {way: [] for way in ways}
        for _ in range(options.repeats):
            for way, plan in ways.items():
                found[name][way].append(plan(tiny, source, output))
        _demand_found(found[name], rows, changed)
    return found


def _demand_found(plans: dict[str, list[Planned]], rows: int, changed: int | None) -> None:
    """Refuse to report the cost of a comparison that is wrong."""
    expected = len(range(0, rows, changed)) if changed else 0
    for plan in (plan for some in plans.values() for plan in some):
        counts = (plan.found["carried"], plan.found["changed"], plan.found["new"])
        if counts != (rows - expected, expected, 0):
            raise SystemExit(f"{expected:,} of {rows:,} rows have changed, and found was {counts}")


def _memory(planned: dict[str, dict[str, list[Planned]]], rows: int) -> dict[str, object]:
    """Bytes of the driver for each row that is there, and for each row that has changed."""
    highest = {
        name: {way: max(plan.bytes for plan in some) for way, some in plans.items()}
        for name, plans in planned.items()
    }
    changed = len(range(0, rows, _CHANGED))
    return {
        "there": {way: highest[REWRITTEN][way] / rows for way in (HERE, ON_RAY)},
        "changed, beyond that": {
            way: (highest[CHANGED][way] - highest[REWRITTEN][way]) / changed
            for way in (HERE, ON_RAY)
        },
    }


def _extrapolated(
    timings: Mapping[str, Mapping[str, Sequence[Timing]]],
    sizes: Mapping[str, int],
    shuffled: float,
) -> dict[str, object]:
    """What a billion rows would take if each took what it took here; the best run counts."""

    def cost(runs: Sequence[Timing], rows: int) -> dict[str, float]:
        cpu, wall = (min(times) for times in zip(*((r.cpu, r.wall) for r in runs), strict=True))
        return {
            "CPU microseconds a row": cpu / rows * 1e6,
            "wall microseconds a row": wall / rows * 1e6,
            "CPU hours": cpu / rows * _BILLION / 3600,
        }

    found: dict[str, object] = {
        name: {way: cost(runs, sizes[name]) for way, runs in ways.items()}
        for name, ways in timings.items()
        if name != SAME
    }
    return found | {"bytes shuffled": shuffled * _BILLION}


def _print_table(timings: Mapping[str, Mapping[str, Sequence[Timing]]]) -> None:
    print(" " * 54 + "".join(f"{name:>9}" for name in ("wall s", "CPU s", "others")))
    for name, ways in timings.items():
        print(name)
        for way, runs in ways.items():
            middle = sorted(runs, key=lambda run: run.wall)[len(runs) // 2]
            print(f"  {way:52}{middle.wall:9.2f}{middle.cpu:9.2f}{middle.others:9.2f}")


if __name__ == "__main__":
    main()
