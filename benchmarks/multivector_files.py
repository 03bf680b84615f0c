"""Writing and reading multi-vectors: our two formats, Ray Data's writer, pyarrow's nested Parquet.

Ours are measured with all they do in a job: the sink's sha256 and its flush to the disk for each
file, the export's check of every sha256, the commit. The others only write, and so does Arrow's own
IPC writer, which is here to show what the sink adds to the format. Every format's numbers are read
back and compared bit by bit; MB are 10^6 bytes of float16 numbers, before any compression.
"""

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from benchmarks.jobs_of_ours import differences, vectors_of
from benchmarks.peers import vector_files
from benchmarks.ray_head import ray_head
from benchmarks.record import Comparison, write_result
from benchmarks.setting import ADAPTER, TASK, Options, options_of, parser, scratch
from benchmarks.timing import Timing, TreeClock, interleave
from pipeline import open_dataset
from pipeline.commit import Snapshot, commit
from pipeline.export import read_multivectors, to_parquet
from pipeline.folder import Folder
from pipeline.manifest import Manifest, parts_of
from pipeline.schema import embedded_schema, output_schema, vector_fields
from pipeline.stages.sink import Sink

IPC, EXPORT = "nightjar, Arrow IPC", "nightjar, Parquet export"
FORMAT_ALONE = "pyarrow, Arrow IPC"
RAY, NESTED = "Ray Data, write_parquet", "pyarrow, nested Parquet"
RAY_FILES = "pyarrow, what Ray Data wrote"
_DIM = 128
_UNIT_ROWS = 256
_FINGERPRINT = "benchmark"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The vectors in every program's own form, and what each program wrote last."""

    scratch: Path
    units: list[pa.Table]
    """As our sink gets them."""
    plain: list[pa.Table]
    """id and multivector."""
    held: ray.data.Dataset
    """As Ray holds them."""
    written: dict[str, Path] = field(default_factory=dict)

    def write_ipc(self) -> None:
        """Sink and commit."""
        folder = Folder(str(self._new(IPC)))
        schema = output_schema(pa.int64(), [], _vectors(), {"fingerprint": _FINGERPRINT})
        sink = Sink(folder, schema, _FINGERPRINT)
        receipts = [sink(unit, f"{n:032}", ADAPTER) for n, unit in enumerate(self.units)]
        parts = [part for receipt in receipts for part in parts_of("", receipt)]
        snapshot = Snapshot(
            manifest=Manifest.of([], parts),
            schema=schema,
            fingerprint=_FINGERPRINT,
            source_digest=_FINGERPRINT,
        )
        commit(folder, snapshot, None)

    def write_export(self) -> None:
        """From a committed dataset, as `nightjar export` does."""
        to_parquet(open_dataset(str(self.written[IPC])), str(self._new(EXPORT)))

    def write_format_alone(self) -> None:
        """The same format, and neither sha256 nor flush nor commit."""
        vector_files.write_ipc(self.plain, self._new(FORMAT_ALONE))

    def write_ray(self) -> None:
        """Ray Data's own writer."""
        vector_files.write_ray(self.held, self._new(RAY))

    def write_nested(self) -> None:
        """pyarrow's defaults."""
        vector_files.write_nested(self.plain, self._new(NESTED))

    def read_ipc(self) -> pa.Table:
        """Through the dataset."""
        return open_dataset(str(self.written[IPC])).to_table(columns=["id", "multivector"])

    def read_export(self) -> pa.Table:
        """With the vectors turned back into numbers."""
        return read_multivectors(pq.read_table(self.written[EXPORT], columns=["id", "multivector"]))

    def read_ray(self) -> ray.data.Dataset:
        """Ray Data's own reader."""
        return vector_files.read_ray(self.written[RAY])

    def read_nested(self) -> pa.Table:
        """pyarrow's defaults."""
        return vector_files.read_nested(self.written[NESTED])

    def read_ray_files(self) -> pa.Table:
        """Without what an execution of Ray Data costs."""
        return pq.read_table(self.written[RAY])

    def _new(self, name: str) -> Path:
        self.written[name] = Path(tempfile.mkdtemp(dir=self.scratch)) / "output"
        return self.written[name]


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=4096, help="items, of about 330 vectors each")
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    rows, median = (300, 20) if options.quick else (parsed.rows, 200)
    units = _make_units(rows, median, options.seed)
    plain = [unit.select(["id", "multivector"]) for unit in units]
    size = sum(unit["multivector"].combine_chunks().flatten().flatten().nbytes for unit in units)
    with scratch(options) as folder, ray_head(options.threads + 1) as head:
        ray.init(address=head.address, log_to_driver=False, logging_level="ERROR")
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            held = vector_files.ray_dataset(plain)
            bench = Bench(scratch=folder, units=units, plain=plain, held=held)
            with TreeClock([os.getpid(), head.process]) as clock:
                comparisons = _compare(bench, options, clock, {"rows": rows, "bytes": size})
            _demand_equal(bench)
        finally:
            ray.shutdown()
    rates = {
        comparison.name: {name: _rate(size, runs) for name, runs in comparison.timings.items()}
        for comparison in comparisons
    }
    for operation, found in rates.items():
        print(
            f"MB per CPU second, {operation}:", ", ".join(f"{n} {r:.0f}" for n, r in found.items())
        )
    config = {"rows": rows, "unit_rows": _UNIT_ROWS, "megabytes_per_cpu_second": rates}
    return write_result("multivector_files", options, comparisons, config)


def _compare(
    bench: Bench, options: Options, clock: TreeClock, work: dict[str, float]
) -> list[Comparison]:
    writers: dict[str, Callable[[], object]] = {
        IPC: bench.write_ipc,
        EXPORT: bench.write_export,
        FORMAT_ALONE: bench.write_format_alone,
        RAY: bench.write_ray,
        NESTED: bench.write_nested,
    }
    readers: dict[str, Callable[[], object]] = {
        IPC: bench.read_ipc,
        EXPORT: bench.read_export,
        RAY: bench.read_ray,
        NESTED: bench.read_nested,
        RAY_FILES: bench.read_ray_files,
    }
    for program in (*writers.values(), *readers.values()):
        program()  # not timed: Ray starts its workers
    return [
        Comparison(
            name=name,
            baseline=IPC,
            timings=interleave(programs, options.repeats, clock),
            work=work,
        )
        for name, programs in (("writing", writers), ("reading", readers))
    ]


def _make_units(rows: int, median: float, seed: int) -> list[pa.Table]:
    """Random unit vectors, log-normally many for each row, as the embed stage hands them on."""
    random = np.random.default_rng(seed)
    schema = embedded_schema(pa.int64(), [], _vectors())
    units = []
    for start in range(0, rows, _UNIT_ROWS):
        ids = np.arange(start, min(start + _UNIT_ROWS, rows))
        lengths = np.clip(random.lognormal(np.log(median), 1.0, len(ids)), 16, 2048).astype(int)
        numbers = random.standard_normal((lengths.sum(), _DIM), dtype=np.float32)
        numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array(numbers.astype(np.float16).reshape(-1)), _DIM
        )
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        values = {
            "row": ids,
            "locator": [f"random#row={row}" for row in ids],
            "id": ids,
            "modality": ["text"] * len(ids),
            "task": [TASK] * len(ids),
            "source_hash": [bytes(32)] * len(ids),
            "kept": pa.array([{}] * len(ids), pa.struct([])),
            "n_tokens": lengths,
            "truncated": [False] * len(ids),
            "multivector": pa.ListArray.from_arrays(offsets, vectors),
        }
        missing = {field.name: pa.nulls(len(ids), field.type) for field in schema}
        units.append(pa.table(missing | values, schema=schema))
    return units


def _vectors() -> list[pa.Field]:
    return vector_fields(dim=None, single_dtype="", multi_dim=_DIM, multi_dtype="float16")


def _demand_equal(bench: Bench) -> None:
    """Refuse a format that gives back other numbers than it was given.

    Raises:
        SystemExit: names it.
    """
    expected = vectors_of(pa.concat_tables(bench.plain))
    found = {
        IPC: vectors_of(bench.read_ipc()),
        EXPORT: vectors_of(bench.read_export()),
        RAY: vectors_of(bench.read_ray_files()),
        NESTED: vectors_of(bench.read_nested()),
    }
    for name, vectors in found.items():
        if any(differences(expected, vectors).values()):
            raise SystemExit(f"{name}: the numbers read are not those that were written")


def _rate(size: int, runs: Sequence[Timing]) -> float:
    """10^6 bytes for each CPU second, median."""
    return statistics.median(size / 1e6 / run.cpu for run in runs)


if __name__ == "__main__":
    main()
