"""The same job, fifty times in one process: what is not new costs nothing, and nothing leaks."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.folder import Folder
from pipeline.log import list_versions
from tests.chaos.leftovers import files_of, garbage_of
from tests.chaos.readings import Reading, demand_flat
from tests.jobs import png, write_spec

pytestmark = pytest.mark.long

_RUNS = 50
_EVERY = 5
"""Of these runs, one finds a new shard."""


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
    demand_flat(readings, loading=1 / _EVERY)


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
