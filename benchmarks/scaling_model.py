"""What a run of many rows on many GPUs would take, computed from what was measured on two cores.

`python -m benchmarks.scaling_model` prints the tables of `scaling.md`. Slopes come from the newest
records of `benchmarks.simulated` (`simulation.slopes`), formulas are in `simulation.scaled`; what
nobody has measured is an assumption, and all of those are fields of its `Assumed`. Everything grows
linearly, because everything that was measured does; a number far outside what was measured (100
million rows, 97,700 units, 2,000 of them on Ray) is a guess with a formula.
"""

import argparse
from collections.abc import Iterator, Sequence

from benchmarks.simulation.scaled import Assumed, Run
from benchmarks.simulation.slopes import Measured, measured, newest_runs

GPUS = (1, 8, 64, 256, 1000)
ROWS = (1_000_000, 100_000_000, 1_000_000_000, 10_000_000_000)
_GIB, _MIB = 2**30, 2**20


def tables(known: Measured, assumed: Assumed) -> str:
    """All tables, as Markdown."""
    run = [Run(rows=rows, gpus=1, known=known, assumed=assumed) for rows in ROWS]
    parts = {
        "slopes": _table("what | a row | a unit | beside them", _slopes(known)),
        "by rows": _table("rows | " + " | ".join(f"{r.rows:,}" for r in run), _by_rows(run)),
        "wall": _table(_heading("GPUs"), _by_gpus(known, assumed)),
        "pace": _table(
            "GPUs | units/s wanted | one driver gives | its core | the board's core | "
            "wave, units | its memory, GiB | store, Gbit/s | weights, TB",
            _paces(known, assumed),
        ),
    }
    return "\n\n".join(f"<!-- {name} -->\n{text}" for name, text in parts.items())


def _table(heading: str, rows: Iterator[Sequence[str]]) -> str:
    lines = [f"| {heading} |", "|" + "---|" * (heading.count("|") + 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _heading(first: str) -> str:
    return " | ".join([first, *(f"{rows:,} rows" for rows in ROWS)])


def _slopes(known: Measured) -> Iterator[Sequence[str]]:
    yield "driver that has imported, MiB", "", "", f"{known.imported / _MIB:,.0f}"
    yield "planning, ids compared, bytes", f"{known.row_bytes:.1f}", "", ""
    yield "planning, ids not compared, bytes", f"{known.kept_row_bytes:.2f}", "", ""
    yield "driver in one process, bytes", "", f"{known.unit_bytes:,.0f}", ""
    ray = f"{known.ray_bytes / _MIB:,.0f} MiB"
    yield "driver on Ray, bytes", "", f"{known.ray_unit_bytes:,.0f}", ray
    yield "planning, ids compared, CPU", f"{known.row_cpu * 1e6:.2f} µs", "", ""
    yield "driver while Ray works, CPU", "", f"{known.ray_unit_cpu * 1e3:.1f} ms", ""
    yield "board, CPU", "", f"{known.board_unit_cpu * 1e3:.1f} ms", ""
    yield "records, manifest, commit, CPU", "", f"{known.unit_cpu * 1e3:.2f} ms", ""
    yield (
        "a night without changes, CPU",
        f"{known.again_row_cpu * 1e6:.2f} µs",
        f"{known.again_unit_cpu * 1e3:.2f} ms",
        "",
    )
    yield "manifest, bytes", "", f"{known.manifest_unit_bytes:.0f}", ""
    yield "record, bytes", "", f"{known.record_unit_bytes:.0f}", ""
    yield "what planning remembers, bytes", f"{known.inspection_row_bytes:.1f}", "", ""
    yield "entry of the log, bytes", "", "", f"{known.log_bytes:,.0f}"
    opened = f"{known.open_unit_bytes:,.0f} bytes, {known.open_unit_cpu * 1e6:.0f} µs"
    yield "opening a snapshot", "", opened, ""


def _by_rows(runs: Sequence[Run]) -> Iterator[Sequence[str]]:
    def of(name: str, spelled: str, value: str, divided: float = 1.0) -> Sequence[str]:
        return (name, *(format(getattr(run, value) / divided, spelled) for run in runs))

    yield of("units of 1,024 rows", ",.0f", "units")
    yield of("driver while planning, ids compared, GiB", ",.1f", "plan_bytes", _GIB)
    yield of("driver while planning, not compared, GiB", ",.1f", "kept_plan_bytes", _GIB)
    yield of("driver on Ray, GiB", ",.1f", "drive_bytes", _GIB)
    yield of("driver, CPU hours", ",.1f", "driver_cpu", 3600)
    yield of("driver waits for records, minutes (assumed)", ",.1f", "waiting", 60)
    yield of("manifest, MB", ",.1f", "manifest_bytes", 1e6)
    yield of("opening a snapshot, GiB", ",.1f", "open_bytes", _GIB)
    yield of("opening a snapshot, CPU seconds", ",.1f", "open_cpu")
    yield of("a night without changes, CPU minutes", ",.1f", "again_cpu", 60)
    yield of("objects, thousands", ",.1f", "objects", 1000)
    yield of("PUT and LIST, thousands", ",.1f", "puts", 1000)
    yield of("GET, thousands", ",.1f", "gets", 1000)
    yield of("requests, dollars (assumed prices)", ",.2f", "dollars")
    yield of("vectors, TB (assumed)", ",.2f", "written_bytes", 1e12)


def _by_gpus(known: Measured, assumed: Assumed) -> Iterator[Sequence[str]]:
    for gpus in GPUS:
        runs = [Run(rows=rows, gpus=gpus, known=known, assumed=assumed) for rows in ROWS]
        yield (f"{gpus:,}", *(f"{_spell(r.gpu_seconds)} / {_spell(r.wall)}" for r in runs))


def _paces(known: Measured, assumed: Assumed) -> Iterator[Sequence[str]]:
    for gpus in GPUS:
        run = Run(rows=ROWS[-1], gpus=gpus, known=known, assumed=assumed)
        yield (
            f"{gpus:,}",
            f"{run.units_per_second:.1f}",
            f"{run.dispatched_per_second:.0f}",
            f"{run.busy:.0%}",
            f"{run.board_busy:.0%}",
            f"{run.wave:,}",
            f"{run.wave_bytes / _GIB:.1f}",
            f"{run.gigabits:.1f}",
            f"{run.checkpoint_terabytes:.2f}",
        )


def _spell(seconds: float) -> str:
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:.0f} s"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Assumed()
    parser.add_argument("--rows-per-gpu-second", type=float, default=default.rows_per_gpu_second)
    parser.add_argument("--unit-rows", type=int, default=default.unit_rows)
    parsed = parser.parse_args(arguments)
    assumed = Assumed(rows_per_gpu_second=parsed.rows_per_gpu_second, unit_rows=parsed.unit_rows)
    print(tables(measured(newest_runs()), assumed))


if __name__ == "__main__":
    main()
