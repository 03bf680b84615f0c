"""The same job, run fifty times in one process: what is not new costs nothing, and nothing leaks.

Flat is decided without a clock and without a fit: after ten runs to warm up, the least of the last
ten readings may not exceed the greatest of the first ten by more than an allowance. Noise and a
single step pass; what grows with each run does not, since thirty runs lie between the two.
"""

import gc
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.folder import Folder
from pipeline.log import list_versions
from pipeline.model.engine import Engine
from tests.chaos.leftovers import files_of, garbage_of
from tests.jobs import png, write_spec

pytestmark = pytest.mark.slow

_RUNS, _WARM_UP, _WINDOW = 50, 10, 10
_EVERY = 5
"""Of these runs, one finds a new shard."""
_ALLOWANCE = {
    "files": 0,
    "threads": 0,
    "arrow": 0,
    # the readings themselves, and less than one more a run
    "objects": 41,
    # safetensors 0.8 keeps two small integers of each tensor that it has read
    "python": 96 << 10,
    # an allocator takes what it wants, the more so as every allocation is noted
    "resident": 16 << 20,
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a process holds between two runs."""

    resident: int
    """Bytes of it in memory, without those that count the others."""
    python: int
    """Bytes that Python has allocated since the test began."""
    arrow: int
    """Bytes that Arrow has allocated."""
    objects: int
    """Objects that the collector knows."""
    files: int
    """Open file descriptors."""
    threads: int
    """Threads."""

    @classmethod
    def take(cls) -> "Reading":
        """Read them all."""
        gc.collect()
        process = psutil.Process()
        return cls(
            resident=process.memory_info().rss - tracemalloc.get_tracemalloc_memory(),
            python=tracemalloc.get_traced_memory()[0],
            arrow=pa.total_allocated_bytes(),
            objects=len(gc.get_objects()),
            files=process.num_fds(),
            threads=process.num_threads(),
        )


@pytest.fixture
def traced() -> Iterator[None]:
    """Python's allocations are counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each call of the network was given."""
    counts: list[int] = []
    embed = Engine.embed

    def counted(self: Engine, items: Any, *arguments: Any, **named: Any) -> Any:
        counts.append(len(items))
        return embed(self, items, *arguments, **named)

    monkeypatch.setattr(Engine, "embed", counted)
    return counts


@pytest.mark.usefixtures("without_canaries")
def test_fifty_runs_hold_no_more_than_ten_and_do_nothing_again(
    tmp_path: Path,
    tiny_checkpoint: Path,
    traced: None,
    passes: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = _write_job(tmp_path, tiny_checkpoint)
    folder, readings, shards = Folder(str(tmp_path / "out")), [], 0
    for run in range(_RUNS):
        is_new = run % _EVERY == 0
        if is_new:
            _write_shard(tmp_path / "docs" / f"{run:02}.parquet", run)
            shards += 1
        before = files_of(folder)
        passes.clear()
        assert main(["embed", str(spec), "--address", "none", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["up_to_date"] is not is_new
        assert list_versions(folder) == list(range(1, shards + 1)), "the log grows by what is new"
        assert garbage_of(folder, keep=shards) == []
        if is_new:
            assert sum(passes) == 3, "the items of the new shard, and no others"
            assert len(files_of(folder) - before) == 3, "its data, its quarantine, its record"
            assert report["rows"] - report["resumed_rows"] == 3
        else:
            assert (passes, files_of(folder)) == ([], before)
        readings.append(Reading.take())
    _demand_flat(readings)


def _demand_flat(readings: list[Reading]) -> None:
    columns = [asdict(reading) for reading in readings]
    for name, allowance in _ALLOWANCE.items():
        found = [column[name] for column in columns]
        first, last = found[_WARM_UP : _WARM_UP + _WINDOW], found[-_WINDOW:]
        assert min(last) <= max(first) + allowance, f"{name} grows: {found}"


def _write_job(root: Path, checkpoint: Path) -> Path:
    (root / "docs").mkdir()
    source = {
        "uri": f"{root}/docs/*.parquet",
        "format": "parquet",
        "id": "doc",
        "text": "body",
        "image": "page",
        "task": "retrieval.passage",
    }
    return write_spec(root, checkpoint, source)


def _write_shard(path: Path, seed: int) -> None:
    """Three rows: a text, a text with an image, and neither."""
    columns = {
        "doc": [f"{seed}-{row}" for row in range(3)],
        "body": [f"a text of shard {seed}", "another", None],
        "page": pa.array([None, png(seed), None], pa.binary()),
    }
    pq.write_table(pa.table(columns), path)
