"""A run that was killed is finished by the same command; what it had done is not done again."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from pipeline.folder import Folder
from pipeline.log import list_versions
from tests.jobs import embed, embed_killed_after, write_spec

_ROWS, _UNIT = 24, 2
_UNITS = _ROWS // _UNIT


@pytest.fixture
def spec(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    shard = tmp_path / "docs.parquet"
    columns = {"doc": pa.array(range(_ROWS)), "body": [f"text number {i}" for i in range(_ROWS)]}
    pq.write_table(pa.table(columns), shard, row_group_size=8)
    source = {
        "uri": str(shard),
        "format": "parquet",
        "id": "doc",
        "text": "body",
        "task": "retrieval.passage",
    }
    return write_spec(tmp_path, tiny_checkpoint, source)


_SLICED = ("--set", f"compute.unit_rows={_UNIT}")


@pytest.mark.parametrize("units", [0, 1, _UNITS - 1])
@pytest.mark.fault("compute.driver_killed")
def test_a_killed_run_is_finished_by_the_same_command(
    spec: Path,
    tmp_path: Path,
    units: int,
    prepared: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    embed_killed_after(units, spec, *_SLICED)
    folder = Folder(str(tmp_path / "out"))
    assert list_versions(folder) == []
    assert embed(spec, *_SLICED, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["items"]) == (_ROWS, _ROWS)
    assert report["resumed_rows"] == units * _UNIT
    assert sum(prepared) == _ROWS - units * _UNIT
    resumed = open_dataset(str(tmp_path / "out"))
    assert embed(spec, *_SLICED, "--set", f"output.uri={tmp_path / 'clean'}") == 0
    clean = open_dataset(str(tmp_path / "clean"))
    assert resumed.to_table().sort_by("id").equals(clean.to_table().sort_by("id"))


def test_a_refused_run_is_finished_from_what_it_had_done_when_the_limit_is_raised(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = tmp_path / "docs.parquet"
    texts = [None if i == 3 else f"text {i}" for i in range(_ROWS)]
    pq.write_table(pa.table({"doc": pa.array(range(_ROWS)), "body": texts}), shard)
    limit = ("--set", "limits.quarantine_share=0.04")
    assert embed(spec, *_SLICED, *limit) == 1
    told = capsys.readouterr().err
    assert "limits.quarantine_share: 0.04, but 4.17% of the 24 items were quarantined" in told
    assert f"null_input: neither a text nor an image\n    {shard}#row=3" in told
    assert list_versions(Folder(str(tmp_path / "out"))) == []
    assert embed(spec, *_SLICED, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["resumed_rows"], report["quarantined"]) == (_ROWS, {"null_input": 1})


def test_data_files_lost_before_the_commit_are_made_again(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed_killed_after(5, spec, *_SLICED)
    folder = Folder(str(tmp_path / "out"))
    (generation,) = folder.folders("data")
    # not any file: the sixth unit was written and not recorded
    recorded = folder.names(f"work/{generation}")[0].partition(".")[0]
    (lost,) = (name for name in folder.names(f"data/{generation}") if name.startswith(recorded))
    folder.delete(f"data/{generation}/{lost}")
    assert embed(spec, *_SLICED, "--json") == 0
    assert json.loads(capsys.readouterr().out)["resumed_rows"] == 4 * _UNIT
    assert open_dataset(str(tmp_path / "out")).count() == _ROWS
