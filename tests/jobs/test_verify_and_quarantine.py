"""What a snapshot holds, checked byte by byte; what was set aside, with reasons."""

import json
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline import open_dataset
from tests.jobs import embed, write_jsonl, write_parquet, write_spec


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> str:
    """Of six good rows and three bad ones."""
    root = tmp_path_factory.mktemp("verify")
    texts = ["fine", None, "  ", None]
    sources = [
        write_parquet(root / "a.parquet") | {"task": "text-matching"},
        write_parquet(root / "b.parquet", body=texts),
    ]
    assert embed(write_spec(root, tiny_checkpoint, sources)) == 0
    return str(root / "out")


def test_a_whole_snapshot_is_said_to_be_whole(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", dataset]) == 0
    files = open_dataset(dataset).files
    assert f"version 1 is whole: {len(files)} files, " in capsys.readouterr().out


def test_every_flipped_byte_and_every_lost_file_is_found(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, file in enumerate(open_dataset(dataset).files):
        path = Path(dataset, file.path)
        data = path.read_bytes()
        at = (number * 997) % len(data)
        path.write_bytes(bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]]))
        assert main(["verify", dataset]) == 1
        assert f"{file.path} is damaged: its sha256 has changed" in capsys.readouterr().err
        path.unlink()
        assert main(["verify", dataset]) == 1
        assert f"{file.path} is gone" in capsys.readouterr().err
        path.write_bytes(data)
    assert main(["verify", dataset]) == 0


def test_the_quarantine_is_listed_by_reason_with_examples(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quarantine", dataset, "--examples", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "version 1: 5 embedded, 3 set aside"
    assert [line.split() for line in lines if line.endswith("_input")] == [
        ["2", "null_input"],
        ["1", "empty_input"],
    ]
    assert sum("b.parquet" in line for line in lines) == 2
    assert main(["quarantine", dataset, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [reason["items"] for reason in found["reasons"]] == [2, 1]
    assert [example["id"] for example in found["reasons"][0]["examples"]] == ["11", "13"]


def test_a_snapshot_without_a_quarantine_has_none_to_list(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl")
    lines = Path(source["uri"]).read_text().replace("{oops\n", "")
    Path(source["uri"]).write_text(lines)
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 0
    capsys.readouterr()
    assert main(["quarantine", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "version 1: 2 embedded, 0 set aside\n"
