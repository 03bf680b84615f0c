"""The command from a store into the same store: killed once, resumed, and run once more."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline import open_dataset
from pipeline.folder import Folder
from pipeline.log import list_versions
from pipeline.storage import use_stores
from pipeline.stores import StoreSpec
from tests.jobs import embed, embed_killed_after, write_spec
from tests.stores.conftest import Store

_ROWS, _UNIT, _DONE = 12, 2, 3


@pytest.fixture
def spec(store: Store, tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A job whose source, output and `storage` are of the store."""
    columns = {"doc": pa.array(range(_ROWS)), "body": [f"text number {i}" for i in range(_ROWS)]}
    shard = io.BytesIO()
    pq.write_table(pa.table(columns), shard, row_group_size=4)
    Folder(store.root).put("in/docs.parquet", shard.getvalue())
    source = {
        "uri": f"{store.root}/in/*.parquet",
        "format": "parquet",
        "id": "doc",
        "text": "body",
        "task": "retrieval.passage",
    }
    path = write_spec(tmp_path, tiny_checkpoint, source, {"uri": f"{store.root}/out"})
    job = json.loads(path.read_text()) | {"storage": store.reached}
    path.write_text(json.dumps(job | {"compute": {"unit_rows": _UNIT}}))
    return path


@pytest.mark.fault("compute.driver_killed")
def test_a_killed_job_is_finished_whole_and_found_done(
    spec: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"{store.root}/out"
    embed_killed_after(_DONE, spec)
    assert list_versions(Folder(output)) == []
    assert embed(spec, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["resumed_rows"]) == (_ROWS, _DONE * _UNIT)
    assert embed(spec, "--json") == 0
    assert json.loads(capsys.readouterr().out)["up_to_date"]
    assert main(["verify", output, "--storage", str(spec)]) == 0
    assert f"version 1 is whole: {_ROWS // _UNIT} files" in capsys.readouterr().out
    local = tmp_path / "local"
    assert embed(spec, "--set", f"output.uri={local}") == 0
    use_stores([StoreSpec(**keys) for keys in store.reached])
    ours, theirs = (open_dataset(uri).to_table().sort_by("id") for uri in (output, str(local)))
    assert ours.num_rows == _ROWS
    assert ours.equals(theirs)
