"""An adapter that somebody has trained, in a job beside the official ones."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.cli import main
from pipeline import open_dataset
from pipeline.errors import SpecError
from pipeline.model.embedder import Embedder
from pipeline.spec import JobSpec
from pipeline.spec_file import parse_spec
from pipeline.tasks import find_task
from tests.jobs import write_spec

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """One with a fourth adapter, `mine`."""
    texts = [f"text {number}" for number in range(20)]
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"query": texts, "positive": texts[::-1]}), path)
    plain = {
        "name": "mine",
        "model": str(tiny_checkpoint),
        "adapter": {"name": "mine"},
        "pairs": [{"uri": str(path)}],
        "steps": 3,
        "batch": {"pairs": 8},
        "held_out": None,
        "optimizer": {"learning_rate": 0.05},
        "output": {"path": str(tmp_path / "trained")},
    }
    spec = tmp_path / "train.yaml"
    spec.write_text(yaml.safe_dump(plain))
    assert main(["train", str(spec)]) == 0
    return tmp_path / "trained"


def _source(path: Path, **more: Any) -> dict[str, Any]:
    return {"uri": str(path), "format": "parquet", "id": "doc", "text": "body", **more}


def test_its_rows_have_a_pool_and_vectors_of_its_own(
    checkpoint: Path, tmp_path: Path, capsys: Captured
) -> None:
    docs, mixed = tmp_path / "docs.parquet", tmp_path / "mixed.parquet"
    pq.write_table(pa.table({"doc": ["a", "b"], "body": ["alpha", "beta"]}), docs)
    kinds = ["mine.query", "code.query", "other.query", "nonsense"]
    rows = {"doc": ["c", "d", "e", "f"], "body": ["alpha"] * 4, "kind": kinds}
    pq.write_table(pa.table(rows), mixed)
    spec = write_spec(
        tmp_path,
        checkpoint,
        [
            _source(docs, task={"adapter": "mine", "prompt": "passage"}),
            _source(mixed, task={"column": "kind", "adapters": ["mine"]}),
        ],
    )
    more = ("--set", "limits.quarantine_share=0.5", "--set", "compute.pools={mine: {min: 1}}")
    assert main(["embed", str(spec), "--address", "none", *more]) == 0
    dataset = open_dataset(str(tmp_path / "out"))
    table = dataset.to_table(["id", "task", "embedding"])
    found = {row["id"]: row for row in table.to_pylist()}
    assert {name: row["task"] for name, row in found.items()} == {
        "a": "mine.passage",
        "b": "mine.passage",
        "c": "mine.query",
        "d": "code.query",
    }
    capsys.readouterr()
    assert main(["quarantine", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "unknown_task" in told
    # the vectors are those of the adapter and the prompt
    for task, text, name in (("mine.passage", "alpha", "a"), ("mine.query", "alpha", "c")):
        expected = Embedder.load(checkpoint, task=task).embed([text], dim=32)
        assert abs(expected.singles[32][0] - found[name]["embedding"]).max() < 1e-5
    other = Embedder.load(checkpoint, task="retrieval.passage").embed(["alpha"], dim=32)
    assert abs(other.singles[32][0] - found["a"]["embedding"]).max() > 1e-3
    searched = [str(tmp_path / "out"), "alpha", "--task", "mine.query"]
    assert main(["search", *searched]) == 0
    assert "a" in capsys.readouterr().out


def test_a_checkpoint_without_it_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, capsys: Captured
) -> None:
    docs = tmp_path / "docs.parquet"
    pq.write_table(pa.table({"doc": ["a"], "body": ["alpha"]}), docs)
    source = _source(docs, task={"adapter": "mine", "prompt": "passage"})
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    assert main(["embed", str(spec), "--address", "none"]) == 2
    assert "has no adapter 'mine'; it has retrieval, text-matching, code" in capsys.readouterr().err


def test_its_tasks_are_told_from_mistakes() -> None:
    mine = find_task("mine.query")
    assert mine is not None
    assert (mine.adapter, mine.prefix) == ("mine", "Query: ")
    for name in ("mine", "mine.other", "Mine.query", "text-matching.query", "retrieval.other", ""):
        assert find_task(name) is None
    plain = {
        "name": "job",
        "model": {"path": "./here"},
        "source": _source(Path("docs.parquet"), task={"adapter": "mine", "prompt": "query"}),
        "output": {"uri": "./out"},
        "compute": {"pools": {"mine": {"max": 2}}},
    }
    spec = parse_spec(plain)
    assert spec.source.task_name == "mine.query"  # type: ignore[union-attr]
    assert parse_spec(spec.model_dump(mode="json", exclude_unset=True)) == spec
    for task, sentence in (
        ({"adapter": "mine", "prompt": "other"}, "prompt"),
        ({"adapter": "text-matching", "prompt": "passage"}, "has none; write its name"),
        ({"adapter": "My Adapter", "prompt": "query"}, "adapter"),
    ):
        with pytest.raises(SpecError, match=sentence):
            parse_spec({**plain, "source": _source(Path("docs.parquet"), task=task)})
    with pytest.raises(SpecError, match=r"compute\.pools: 'other' is no adapter that"):
        parse_spec({**plain, "compute": {"pools": {"other": {}}}})
    assert isinstance(spec, JobSpec)
