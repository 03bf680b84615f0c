"""A dataset of which a file is damaged or gone: one sentence from every command, and a way out."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline import open_dataset
from pipeline.folder import Folder
from pipeline.log import entry_name, read_entry
from tests.jobs import embed, write_parquet, write_spec

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A folder with a dataset and the spec that made it; one row was set aside."""
    root = tmp_path_factory.mktemp("damaged")
    source = write_parquet(root / "a.parquet", body=["fine", "good", "", "well"])
    assert embed(write_spec(root, tiny_checkpoint, source)) == 0
    return root


@pytest.fixture
def dataset(made: Path) -> Folder:
    """As it was made."""
    shutil.rmtree(made / "out")
    assert embed(made / "job.yaml") == 0
    return Folder(str(made / "out"))


_WHERE = {"data": 0, "quarantine": -1}


@pytest.mark.fault("output.damaged")
@pytest.mark.parametrize("fate", ["cut", "gone"])
@pytest.mark.parametrize("kind", _WHERE)
def test_a_damaged_snapshot_is_not_up_to_date_and_retry_embeds_what_is_lost(
    made: Path, dataset: Folder, capsys: Captured, kind: str, fate: str
) -> None:
    file = open_dataset(dataset.uri).files[_WHERE[kind]]
    data = dataset.get(file.path)
    if fate == "cut":
        dataset.put(file.path, data[: len(data) // 2])
    else:
        dataset.delete(file.path)
    capsys.readouterr()
    for command in (["embed", str(made / "job.yaml"), "--address", "none"], ["show", dataset.uri]):
        assert main(command) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"nightjar: {dataset.uri}/{file.path}, a file of version 1, ")
        assert f"`nightjar retry {dataset.uri}`" in told
        assert told.count("\n") == 1
    assert main(["retry", dataset.uri, "--address", "none"]) == 0
    assert main(["verify", dataset.uri]) == 0
    assert open_dataset(dataset.uri).version == 2
    assert embed(made / "job.yaml") == 0
    assert "up to date" in capsys.readouterr().out


@pytest.mark.fault("output.damaged")
@pytest.mark.parametrize("what", ["format.json", "log", "manifests"])
@pytest.mark.parametrize("command", ["show", "verify", "quarantine", "embed"])
def test_what_leads_to_the_files_is_cut_and_every_command_says_so(
    made: Path, dataset: Folder, capsys: Captured, what: str, command: str
) -> None:
    path = made / "out" / what
    path = path if path.is_file() else next(path.iterdir())
    path.write_bytes(path.read_bytes()[:-7])
    capsys.readouterr()
    of_job = [str(made / "job.yaml"), "--address", "none"]
    assert main([command, *(of_job if command == "embed" else [dataset.uri])]) == 2
    told = capsys.readouterr().err
    assert f"{path.name} is damaged" in told
    assert told.count("\n") == 1


@pytest.mark.fault("output.damaged")
def test_verify_holds_the_counts_of_an_entry_against_its_files(
    dataset: Folder, capsys: Captured
) -> None:
    name = entry_name(1)
    data = dataset.get(name)
    dataset.put(name, data.replace(b'"rows": 3', b'"rows": 4'))
    assert main(["verify", dataset.uri]) == 2
    assert f"{name} is damaged" in capsys.readouterr().err
    dataset.put(name, data)
    for change in ({"rows": 4}, {"quarantined": 0}):
        wrong = dataclasses.replace(read_entry(dataset, 1), **change)
        dataset.put(name, wrong.to_json().encode())
        assert main(["verify", dataset.uri]) == 1
        assert "version 1 was committed as " in capsys.readouterr().err
        dataset.put(name, data)
    assert main(["verify", dataset.uri]) == 0
