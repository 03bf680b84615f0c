"""Parquet shards that cannot be read as the spec says: one sentence, before a model is loaded."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RunError, SourceError
from pipeline.shards.footer import open_parquet
from pipeline.stages.plan import plan_work
from pipeline.stages.source import read_units
from tests.shards import job, read_all


def _source(uri: object, **changes: object) -> dict[str, Any]:
    base = {"uri": str(uri), "format": "parquet", "id": "id", "text": "text", "task": "code.query"}
    return base | changes


def _write(path: Path, rows: int) -> None:
    columns = {"id": pa.array(range(rows), "int64"), "text": pa.array(["a"] * rows, "string")}
    pq.write_table(pa.table(columns), path)


def _refusal(source: object) -> str:
    with pytest.raises(SourceError) as caught:
        plan_work(job(source), 602112)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"id": "idd"}, "source.id"),
        ({"text": "txt"}, "source.text"),
        ({"image": "img"}, "source.image"),
        ({"task": {"column": "tsk"}}, "source.task.column"),
        ({"keep": ["titel"]}, "source.keep"),
    ],
)
@pytest.mark.fault("column.missing")
def test_a_missing_column_is_refused_and_those_that_exist_are_named(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    pq.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "a.parquet")
    sentence = _refusal(_source(tmp_path / "a.parquet", **changes))
    assert sentence.startswith(f"{key}: {tmp_path / 'a.parquet'} has no column")
    assert sentence.endswith("it has id, text")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"text": "id"}, "source.text: column 'id' of .* is int64, expected a string"),
        ({"id": "list"}, "source.id: column 'list' .* expected a plain value"),
        ({"image": "id"}, "source.image: column 'id' of .* expected encoded bytes"),
        ({"task": {"column": "id"}}, "source.task.column: column 'id' .* expected a string"),
    ],
)
@pytest.mark.fault("column.type")
def test_a_column_of_another_type_is_refused(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    pq.write_table(pa.table({"id": [1], "text": ["a"], "list": [[1]]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=expected):
        plan_work(job(_source(tmp_path / "a.parquet", **changes)), 602112)


@pytest.mark.parametrize("column", ["id", "when"])
@pytest.mark.fault("column.drift")
def test_shards_that_disagree_about_a_type_are_refused_by_name(tmp_path: Path, column: str) -> None:
    first = {"id": pa.array([1]), "when": pa.array([1]), "text": ["a"]}
    pq.write_table(pa.table(first), tmp_path / "1.parquet")
    pq.write_table(pa.table(first), tmp_path / "2.parquet")
    pq.write_table(pa.table(first | {column: pa.array(["x"])}), tmp_path / "3.parquet")
    sentence = _refusal(_source(tmp_path, keep=["when"]))
    assert f"{column}" in sentence
    assert f"is string in {tmp_path}/3.parquet, and int64 in the shards before it" in sentence


@pytest.mark.fault("column.drift")
def test_a_column_missing_in_one_shard_is_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"id": [1], "body": ["a"]}), tmp_path / "2.parquet")
    assert f"{tmp_path}/2.parquet has no column 'text'" in _refusal(_source(tmp_path))


@pytest.mark.fault("column.drift")
def test_extra_columns_in_a_shard_are_ignored(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"x": [0.5], "text": ["b"], "id": [2]}), tmp_path / "2.parquet")
    assert read_all(_source(tmp_path)).plan.rows == 2


@pytest.mark.parametrize("column", ["id", "text"])
def test_a_shard_in_which_a_column_is_all_null_fits_the_others(tmp_path: Path, column: str) -> None:
    table = pa.table({"id": pa.array([1]), "text": ["a"]})
    pq.write_table(table, tmp_path / "1.parquet")
    at = table.schema.get_field_index(column)
    pq.write_table(table.set_column(at, column, pa.nulls(1)), tmp_path / "2.parquet")
    found = read_all(_source(tmp_path))
    assert (found.plan.rows, found.plan.id_type) == (2, pa.int64())


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    arrays = [pa.array([1]), pa.array(["a"]), pa.array(["b"])]
    table = pa.Table.from_arrays(arrays, names=["id", "text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "'text'" in _refusal(_source(tmp_path / "a.parquet"))


@pytest.mark.fault("file.nothing")
def test_no_file_and_no_row_are_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    assert _refusal(_source(tmp_path)) == (
        f"source.uri: no object matches '{tmp_path}' (a directory is searched for .parquet, .pq)"
    )
    _write(tmp_path / "a.pq", 0)
    assert "has no rows; an empty source is refused" in _refusal(_source(tmp_path))
    missing = _source("unused") | {"uri": [str(tmp_path / "a.pq"), str(tmp_path / "*.missing")]}
    assert "*.missing" in _refusal(missing)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"<html>" * 99, None], ids=repr)
@pytest.mark.fault("file.corrupt")
def test_a_file_that_is_no_whole_parquet_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"]}), path)
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    assert _refusal(_source(path)).startswith(f"{path} cannot be read as Parquet: ")


@pytest.mark.fault("file.changed")
def test_a_shard_that_lost_rows_since_it_was_planned_ends_the_run(tmp_path: Path) -> None:
    _write(tmp_path / "a.parquet", 9)
    spec = job(_source(tmp_path / "a.parquet"))
    plan = plan_work(spec, 602112)
    _write(tmp_path / "a.parquet", 8)
    with pytest.raises(RunError, match=r"a\.parquet was changed while the run read it"):
        list(read_units(spec.sources[0], plan.units, plan.id_type, []))


def test_views_and_dictionaries_come_out_plain(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array(["a", "b"], pa.string_view()),
            "text": pa.array(["x", "y"]).dictionary_encode(),
            "kept": pa.array([b"1", None], pa.binary_view()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_all(_source(tmp_path / "a.parquet") | {"keep": ["kept"]})
    assert found.plan.id_type == pa.string()
    assert found.plan.kept == (pa.field("kept", pa.binary()),)
    assert found.column("text") == [b"x", b"y"]
    assert found.column("kept") == [{"kept": b"1"}, {"kept": None}]


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"x" * 99],
    ids=["empty", "no end", "no footer", "a footer longer than the file", "text"],
)
def test_what_is_no_parquet_is_told_as_such_and_in_no_other_way(content: bytes) -> None:
    with pytest.raises(pa.ArrowInvalid), io.BytesIO(content) as stream:
        open_parquet(stream, "a.parquet")


def test_an_encrypted_file_is_told_as_such_and_not_taken_for_a_fault_of_the_disk() -> None:
    with (
        pytest.raises(OSError, match="encrypted metadata") as told,
        io.BytesIO(b"PAR1\4\0\0\0PARE") as stream,
    ):
        open_parquet(stream, "a.parquet")
    assert told.value.errno is None
