"""The job kept beside a dataset is gone on with from anywhere, wherever the dataset is by then."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from pipeline import open_dataset
from pipeline.log import JOB
from tests.jobs import embed, png, write_spec


def _write(folder: Path, name: str) -> dict[str, Any]:
    """A row whose image is there, and one whose image is not there yet."""
    lines = [{"doc": page, "page": f"{page}.png"} for page in ("now", "late")]
    (folder / name).write_text("\n".join(map(json.dumps, lines)))
    (folder / "now.png").write_bytes(png(1))
    return {
        "uri": name,
        "format": "jsonl",
        "id": "doc",
        "image": "page",
        "task": "retrieval.passage",
    }


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the run; the retry has another."""
    folder = tmp_path / "there"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _retried(monkeypatch: pytest.MonkeyPatch, dataset: Path) -> list[str]:
    """What is embedded after a retry from elsewhere, the image being there by now."""
    (dataset.parent / "there/late.png").write_bytes(png(2))
    monkeypatch.chdir("/")
    assert main(["retry", str(dataset), "--address", "none"]) == 0
    return sorted(open_dataset(str(dataset)).to_table()["id"].to_pylist())


@pytest.mark.parametrize("several", [False, True], ids=["one source", "a list"])
def test_paths_of_a_job_hold_from_any_working_directory(
    there: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    source = _write(there, "docs.jsonl")
    model = os.path.relpath(tiny_checkpoint, there)
    spec = write_spec(there, model, [source] if several else source, {"uri": "../out"})
    assert embed(spec) == 0
    assert _retried(monkeypatch, there.parent / "out") == ["late", "now"]


def test_a_dataset_that_was_moved_is_gone_on_with_where_it_is(
    there: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, moved = there.parent / "out", there.parent / "moved"
    assert (
        embed(write_spec(there, tiny_checkpoint, _write(there, "a.jsonl"), {"uri": str(out)})) == 0
    )
    out.rename(moved)
    assert _retried(monkeypatch, moved) == ["late", "now"]
    assert not out.exists()
    told = capsys.readouterr().out
    assert "1 item tried again, 1 embedded in" in told
    assert "s; none left\n" in told


def test_the_job_is_that_of_the_last_run(there: Path, tiny_checkpoint: Path) -> None:
    output = {"uri": str(there / "out")}
    for name in ("a.jsonl", "b.jsonl"):
        assert embed(write_spec(there, tiny_checkpoint, _write(there, name), output)) == 0
    kept = json.loads((there / "out" / JOB).read_text())
    assert kept["source"]["uri"] == [str(there / "b.jsonl")]
    # what was not written is left to its default, which a later version may choose otherwise
    assert "compute" not in kept
    assert "image_hosts" not in kept["source"]


@pytest.mark.parametrize("content", ["", "7", "[]", "{}", '{"output": 7}'])
def test_a_job_that_is_damaged_is_told(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / JOB).write_text(content)
    assert main(["retry", str(tmp_path), "--address", "none"]) == 2
    assert f"{JOB} is damaged" in capsys.readouterr().err
