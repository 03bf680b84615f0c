"""Columns and ids of the catalogue, through the command."""

import re
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from tests.jobs import embed, write_spec

Captured = pytest.CaptureFixture[str]

HOSTILE_IDS = [
    "../../../etc/passwd",
    "/etc/passwd",
    "..",
    "",
    " ",
    "a\nb",
    "a\0b",
    "con",
    "%2e%2e%2f",
    "'; drop table docs; --",
    "\u202egnp.exe",
    "a/b//c",
    "x" * (1 << 20),
    "ключ",
]


def _source(path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "uri": str(path),
        "format": "parquet",
        "id": "id",
        "text": "text",
        "task": "code.query",
    } | changes


def _table(**columns: Any) -> pa.Table:
    return pa.table({"id": ["a", "b"], "text": ["one", "two"]} | columns)


@pytest.mark.fault("id.hostile")
def test_hostile_ids_are_kept_and_are_part_of_no_path(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    table = pa.table({"id": HOSTILE_IDS, "text": ["owl"] * len(HOSTILE_IDS)})
    pq.write_table(table, inside / "a.parquet")
    before = {path for path in tmp_path.rglob("*")}
    spec = write_spec(inside, tiny_checkpoint, _source(inside / "a.parquet"))
    assert embed(spec) == 0
    assert open_dataset(str(inside / "out")).to_table()["id"].to_pylist() == HOSTILE_IDS
    made = {path for path in tmp_path.rglob("*")} - before - {spec}
    assert all(path.is_relative_to(inside / "out") for path in made)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,150}", path.name) for path in made)


@pytest.mark.fault("id.types")
@pytest.mark.parametrize(
    "ids",
    [
        pa.array([1, 2**63 - 1], pa.int64()),
        pa.array(["1", "01"]),
        pa.array([uuid.UUID(int=1).bytes, uuid.UUID(int=2).bytes], pa.binary(16)),
    ],
    ids=["numbers", "strings", "16 bytes"],
)
def test_ids_keep_their_type_and_value_to_the_end(
    tmp_path: Path, tiny_checkpoint: Path, ids: pa.Array
) -> None:
    pq.write_table(_table(id=ids), tmp_path / "a.parquet")
    assert embed(write_spec(tmp_path, tiny_checkpoint, _source(tmp_path / "a.parquet"))) == 0
    assert open_dataset(str(tmp_path / "out")).to_table()["id"].combine_chunks().equals(ids)


_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing": ({}, {"text": "txt"}, r"source\.text: .*1\.parquet has no column 'txt'; it has id"),
    "numbers for a text": ({"text": [1, 2]}, {}, r"column 'text' of .*1\.parquet is int64"),
    "lists for a text": ({"text": [["a"], ["b"]]}, {}, r"column 'text' of .*1\.parquet is list"),
    "structs for an id": ({"id": [{"a": 1}] * 2}, {}, r"column 'id' of .*1\.parquet is struct"),
    "numbers for a task": (
        {"task": [1, 2]},
        {"task": {"column": "task"}},
        r"column 'task' of .*1\.parquet is int64",
    ),
    "numbers for an image": (
        {"page": [1, 2]},
        {"image": "page"},
        r"column 'page' of .*1\.parquet is int64",
    ),
}


@pytest.mark.fault("column.missing", "column.type")
@pytest.mark.parametrize("case", _REFUSED)
def test_a_column_that_is_not_as_the_spec_says_is_refused_before_a_model_is_loaded(
    tmp_path: Path,
    tiny_checkpoint: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    columns, changes, sentence = _REFUSED[case]
    pq.write_table(_table(**columns), tmp_path / "1.parquet")
    spec = write_spec(tmp_path, tiny_checkpoint, _source(tmp_path / "1.parquet", **changes))
    assert _refusal(spec, capsys, monkeypatch, sentence)


@pytest.mark.fault("column.drift")
@pytest.mark.parametrize(
    ("column", "values", "sentence"),
    [
        ("id", [1, 2], r"source\.id is int64 in .*2\.parquet, and string in the shards before it"),
        ("kept", ["x", "y"], r"source\.keep: 'kept' is string in .*2\.parquet, and int64 in the "),
        ("text", [1, 2], r"column 'text' of .*2\.parquet is int64"),
    ],
)
def test_a_shard_of_other_types_is_refused_by_name(
    tmp_path: Path,
    tiny_checkpoint: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    values: list[Any],
    sentence: str,
) -> None:
    pq.write_table(_table(kept=[1, 2]), tmp_path / "1.parquet")
    pq.write_table(_table(kept=[3, 4]).select(["kept", "text", "id"]), tmp_path / "1b.parquet")
    pq.write_table(_table(**{"kept": [1, 2], column: values}), tmp_path / "2.parquet")
    spec = write_spec(tmp_path, tiny_checkpoint, _source(tmp_path, keep=["kept"]))
    assert _refusal(spec, capsys, monkeypatch, sentence)


def _refusal(
    spec: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, sentence: str
) -> re.Match[str] | None:
    monkeypatch.setattr("pipeline.model.embedder.Engine.__init__", _no_model)
    assert embed(spec) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert not (spec.parent / "out").exists()
    return re.search(sentence, told)


def _no_model(*_: object, **__: object) -> None:
    raise AssertionError("a model was loaded")
