"""What a run of many rows on many GPUs would take, computed from what was measured on two cores.

`python -m benchmarks.scaling_model` prints the tables of `scaling.md`. Slopes come from the newest
records of `benchmarks.simulated`; what nobody has measured is an assumption, and all of those are
fields of `Assumed`. Everything grows linearly here, because everything that was measured does; a
number far outside what was measured (100 million rows, 97,700 units, 2,000 of them on Ray) is a
guess with a formula, and `scaling.md` says which.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.simulation.slopes import Measured, measured, newest_runs

GPUS = (1, 8, 64, 256, 1000)
ROWS = (1_000_000, 100_000_000, 1_000_000_000, 10_000_000_000)
_GIB, _MIB = 2**30, 2**20


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What has not been measured."""

    rows_per_gpu_second: float = 100.0
    """Texts of 200 tokens: 2 x 3.1e9 x 200 FLOP each, and 125 TFLOP/s of a device. No GPU has run
    Nightjar yet, so everything in seconds of GPU is this number's."""
    unit_rows: int = 1024
    """`shape.TEXT_UNIT_ROWS`."""
    shard_rows: int = 1_000_000
    """As in the simulation."""
    bytes_in: int = 1000
    """Of a row's text in its shard."""
    bytes_out: int = 2048 * 4 + 200 * 128 * 2
    """Of a row's vectors: 2048 float32, and 200 tokens of 128 float16."""
    reads_per_unit: float = 4.0
    """GETs for a unit: footer in two, two column chunks. Simulated workers read nothing."""
    put_price: float = 0.005 / 1000
    """Dollars for a PUT or LIST: S3 Standard's list price in us-east-1."""
    get_price: float = 0.0004 / 1000
    """Dollars for a GET or HEAD, likewise."""
    request_seconds: float = 0.03
    """For which the driver waits for one small object."""
    requests_at_once: int = 32
    """`records._RECORDS_AT_ONCE`."""
    checkpoint_bytes: float = 7.5e9
    """Of the weights, fetched once for each node."""
    gpus_per_node: int = 8


@dataclass(frozen=True, kw_only=True)
class Run:
    """A first night of so many rows on so many GPUs."""

    rows: int
    gpus: int
    known: Measured
    assumed: Assumed

    @property
    def units(self) -> int:
        """`plan._units`: slices of segments; here a row group is a unit."""
        return math.ceil(self.rows / self.assumed.unit_rows)

    @property
    def gpu_seconds(self) -> float:
        """On the wall, were the GPUs all that it takes."""
        return self.rows / self.assumed.rows_per_gpu_second / self.gpus

    @property
    def units_per_second(self) -> float:
        """That the GPUs would do."""
        return self.gpus * self.assumed.rows_per_gpu_second / self.assumed.unit_rows

    @property
    def dispatched_per_second(self) -> float:
        """Units that one driver can hand out: it has one core, since Ray Data's loop is Python."""
        return 1 / self.known.ray_unit_cpu

    @property
    def busy(self) -> float:
        """Share of the driver's one core that the GPUs want."""
        return self.units_per_second / self.dispatched_per_second

    @property
    def wall(self) -> float:
        """Seconds of embedding: the slower of the GPUs and the driver."""
        return self.gpu_seconds * max(1.0, self.busy)

    @property
    def plan_bytes(self) -> float:
        """Of the driver while it plans, ids compared."""
        return self.known.imported + self.known.row_bytes * self.rows

    @property
    def kept_plan_bytes(self) -> float:
        """Of the driver while it plans, ids not compared."""
        return self.known.imported + self.known.kept_row_bytes * self.rows

    @property
    def drive_bytes(self) -> float:
        """Of the driver afterwards, on Ray."""
        known = self.known
        return known.ray_bytes + max(known.ray_unit_bytes, known.unit_bytes) * self.units

    @property
    def driver_cpu(self) -> float:
        """Seconds: planning, Ray, and the protocol."""
        known = self.known
        return known.row_cpu * self.rows + (known.ray_unit_cpu + known.unit_cpu) * self.units

    @property
    def again_cpu(self) -> float:
        """Seconds of a night in which nothing has changed."""
        return self.known.again_row_cpu * self.rows + self.known.again_unit_cpu * self.units

    @property
    def manifest_bytes(self) -> float:
        """Of the one object that names all files."""
        return self.known.manifest_unit_bytes * self.units

    @property
    def open_bytes(self) -> float:
        """Of memory, of who opens the snapshot."""
        return self.known.imported + self.known.open_unit_bytes * self.units

    @property
    def open_cpu(self) -> float:
        """Seconds, to open it."""
        return self.known.open_unit_cpu * self.units

    @property
    def written_bytes(self) -> float:
        """Of vectors."""
        return self.rows * self.assumed.bytes_out

    @property
    def waiting(self) -> float:
        """Seconds in which the driver waits for records to be read, for a network's sake."""
        return self.units * self.assumed.request_seconds / self.assumed.requests_at_once

    @property
    def shards(self) -> int:
        """Objects of the source."""
        return math.ceil(self.rows / self.assumed.shard_rows)

    @property
    def objects(self) -> int:
        """That the run leaves: data and record of each unit, an inspection of each shard."""
        return 2 * self.units + self.shards

    @property
    def puts(self) -> float:
        """PUTs and LISTs."""
        return self.objects + self.known.lists_per_unit * self.units

    @property
    def gets(self) -> float:
        """GETs: of input by workers, of records by the driver, of ids by the planner."""
        return (self.assumed.reads_per_unit + 1) * self.units + 14 * self.shards

    @property
    def dollars(self) -> float:
        """For requests."""
        return self.puts * self.assumed.put_price + self.gets * self.assumed.get_price

    @property
    def gigabits(self) -> float:
        """A second, in and out of the object store, while the GPUs are busy."""
        moved = self.rows * (self.assumed.bytes_in + self.assumed.bytes_out)
        return 8 * moved / self.wall / 1e9

    @property
    def board_busy(self) -> float:
        """Share of one core that the board takes, at the pace of the GPUs."""
        return self.units_per_second * self.known.board_unit_cpu

    @property
    def checkpoint_terabytes(self) -> float:
        """Fetched by the nodes at the start."""
        nodes = math.ceil(self.gpus / self.assumed.gpus_per_node)
        return nodes * self.assumed.checkpoint_bytes / 1e12


def tables(known: Measured, assumed: Assumed) -> str:
    """All tables, as Markdown."""
    run = [Run(rows=rows, gpus=1, known=known, assumed=assumed) for rows in ROWS]
    parts = {
        "slopes": _table("what | a row | a unit | beside them", _slopes(known)),
        "by rows": _table("rows | " + " | ".join(f"{r.rows:,}" for r in run), _by_rows(run)),
        "wall": _table(_heading("GPUs"), _by_gpus(known, assumed)),
        "pace": _table(
            "GPUs | units/s wanted | one driver gives | its core | the board's core | "
            "store, Gbit/s | weights, TB",
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
