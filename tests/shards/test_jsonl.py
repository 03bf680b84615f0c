"""JSONL shards: each line read once, whatever ends it; a bad line is a row set aside."""

import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.stages.plan import plan_work
from tests.shards import ROUTINGS, adapter_of, assert_each_row_is_read_once, job, read_all


def _source(uri: object, **changes: object) -> dict[str, Any]:
    base = {"uri": str(uri), "format": "jsonl", "id": "id", "text": "text", "task": "code.query"}
    return base | changes


def _file(directory: Path, content: bytes, name: str = "a.jsonl") -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def _refusal(source: object) -> str:
    with pytest.raises(SourceError) as caught:
        plan_work(job(source), 602112)
    assert "\n" not in str(caught.value)
    return str(caught.value)


_TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)


@given(
    rows=st.lists(st.tuples(st.sampled_from(ROUTINGS), _TEXTS), min_size=1, max_size=20),
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\n\n", "\n  \t\n", "\r\n\r\n"]), min_size=20),
    whole_end=st.booleans(),
    as_ascii=st.booleans(),
    unit_rows=st.integers(1, 9),
)
def test_units_cover_each_line_once_whatever_ends_it(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str | None, str]],
    ends: list[str],
    whole_end: bool,
    as_ascii: bool,
    unit_rows: int,
) -> None:
    content = ""
    for number, ((task, text), end) in enumerate(zip(rows, ends, strict=False)):
        record = {"id": f"ключ {number}", "text": text, "task": task}
        content += json.dumps(record, ensure_ascii=as_ascii) + end
    if not whole_end:
        content = content.rstrip()
    path = _file(tmp_path_factory.mktemp("shard"), content.encode())
    found = read_all(_source(path, task={"column": "task"}), unit_rows)
    tasks = [task for task, _ in rows]
    assert_each_row_is_read_once(found, tasks, unit_rows)
    assert found.plan.rows_by_adapter == Counter(map(adapter_of, tasks))
    assert found.column("id") == [f"ключ {number}" for number in range(len(rows))]
    assert found.column("text") == [text.encode() for _, text in rows]


@pytest.mark.parametrize("unit_rows", [1, 5])
def test_a_carriage_return_inside_a_line_does_not_end_it(tmp_path: Path, unit_rows: int) -> None:
    path = _file(tmp_path, b'{"id": 1,\r "text": "a"}\n{"id": 2,\r "text": "b"}\n')
    found = read_all(_source(path), unit_rows)
    assert found.column("reason") == [None, None]
    assert found.column("id") == [1, 2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops", "the line is not JSON"),
        (b'{"id": 1, "text": "cut', "the line is not JSON"),
        (b'{"id": 1, "text": "\xff"}', "the line is not JSON"),
        (b"[1, 2]", "but not an object"),
        (b'"text"', "but not an object"),
        (b"null", "but not an object"),
        (b"[" * 100_000, "the line is not JSON"),
        (b'{"id": 7, "text": ["a"]}', "'text' is not a string"),
        (b'{"id": 7, "text": 5}', "'text' is not a string"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_bad_line_is_a_row_with_a_reason_between_its_neighbours(
    tmp_path: Path, line: bytes, message: str
) -> None:
    lines = [b'{"id": 1, "text": "before"}', line, b'{"id": 3, "text": "after"}']
    found = read_all(_source(_file(tmp_path, b"\n".join(lines))), 2)
    assert found.column("reason") == [None, "malformed_record", None]
    assert found.column("text") == [b"before", None, b"after"]
    assert found.column("locator")[1] == f"{tmp_path}/a.jsonl#record=1"
    assert message in found.column("message")[1]
    assert found.column("stage") == [None, "source", None]


@pytest.mark.fault("text.lone_surrogate")
def test_a_lone_surrogate_in_a_text_reaches_preparation_as_its_bytes(tmp_path: Path) -> None:
    found = read_all(_source(_file(tmp_path, b'{"id": 1, "text": "a\\ud800"}\n')))
    assert found.column("text") == [b"a\xed\xa0\x80"]
    assert found.column("reason") == [None]


@pytest.mark.parametrize("field", ["id", "task", "title"])
@pytest.mark.fault("text.lone_surrogate")
def test_a_lone_surrogate_elsewhere_does_not_end_the_run(tmp_path: Path, field: str) -> None:
    record = {"id": "a", "task": "code.query", "title": "x", "text": "y"} | {field: "\ud800"}
    path = _file(tmp_path, json.dumps(record).encode())
    found = read_all(_source(path, task={"column": "task"}, keep=["title"]))
    assert found.plan.rows == 1


@pytest.mark.parametrize("field", ["id", "n"])
def test_a_number_that_fits_no_type_is_refused(tmp_path: Path, field: str) -> None:
    record = {"id": 1, "n": 1, "text": "y"} | {field: 2**70}
    path = _file(tmp_path, json.dumps(record).encode())
    assert str(path) in _refusal(_source(path, keep=["n"]))


def test_a_nested_id_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, b'{"id": [1], "text": "a"}\n')
    assert "source.id" in _refusal(_source(path))


def test_an_image_that_is_no_string_is_a_malformed_record(tmp_path: Path) -> None:
    path = _file(tmp_path, b'{"id": 1, "text": "a", "image": 5}\n{"id": 2, "image": "x"}\n')
    found = read_all(_source(path, image="image"))
    assert found.column("reason")[0] == "malformed_record"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], pa.int64()),
        (["1", "2"], pa.string()),
        ([1, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, False], pa.bool_()),
        ([["a"], []], pa.list_(pa.string())),
        ([{"a": 1}, {"b": "x"}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([None, None], pa.string()),
    ],
    ids=str,
)
def test_kept_fields_get_the_type_of_their_values(
    tmp_path: Path, values: list[Any], kind: pa.DataType
) -> None:
    lines = [json.dumps({"id": n, "text": "a", "k": value}) for n, value in enumerate(values)]
    found = read_all(_source(_file(tmp_path, "\n".join(lines).encode()), keep=["k"]))
    assert found.plan.kept == (pa.field("k", kind),)
    expected = pa.array(values, kind).to_pylist()
    assert [row["k"] for row in found.column("kept")] == expected


@pytest.mark.fault("id.types")
def test_numbers_and_strings_stay_what_they_are_and_a_missing_id_is_null(tmp_path: Path) -> None:
    numbers = read_all(_source(_file(tmp_path, b'{"id": 1, "text": "a"}\n{"text": "b"}\n')))
    assert (numbers.plan.id_type, numbers.column("id")) == (pa.int64(), [1, None])
    words = read_all(_source(_file(tmp_path, b'{"id": "1", "text": "a"}\n')))
    assert (words.plan.id_type, words.column("id")) == (pa.string(), ["1"])
    day = str(datetime.date(2024, 1, 1))
    days = read_all(_source(_file(tmp_path, json.dumps({"id": day, "text": "a"}).encode())))
    assert (days.plan.id_type, days.column("id")) == (pa.string(), [day])


@pytest.mark.parametrize(
    "other",
    [
        '"x"',
        "true",
        "[2]",
        '{"a": 1}',
    ],
)
@pytest.mark.fault("column.type")
def test_mixed_types_are_refused_within_a_shard(tmp_path: Path, other: str) -> None:
    path = _file(tmp_path, b'{"id": 1, "text": "a"}\n{"id": %s, "text": "a"}\n' % other.encode())
    sentence = _refusal(_source(path))
    assert sentence.startswith(f"source.id: 'id' has values of different types in {path}")


@pytest.mark.fault("column.drift")
def test_mixed_types_are_refused_between_shards(tmp_path: Path) -> None:
    _file(tmp_path, b'{"id": 1, "text": "a"}\n', "1.jsonl")
    _file(tmp_path, b'{"id": "x", "text": "a"}\n', "2.jsonl")
    assert f"source.id is string in {tmp_path}/2.jsonl, and int64" in _refusal(_source(tmp_path))


def test_a_shard_without_values_agrees_with_any_other(tmp_path: Path) -> None:
    _file(tmp_path, b'{"id": null, "text": "a"}\n', "1.jsonl")
    _file(tmp_path, b'{"id": 5, "text": "a"}\n', "2.jsonl")
    assert read_all(_source(tmp_path)).plan.id_type == pa.int64()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"id": "x"}, "source.id"),
        ({"text": "x"}, "source.text"),
        ({"image": "x"}, "source.image"),
        ({"task": {"column": "x"}}, "source.task.column"),
        ({"keep": ["x"]}, "source.keep"),
    ],
)
@pytest.mark.fault("column.missing")
def test_a_field_no_line_has_is_refused_and_those_that_exist_are_named(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    path = _file(tmp_path, b'{"id": 1, "text": "a"}\n{"text": "b", "more": 1}\n')
    assert _refusal(_source(path, **changes)) == (
        f"{key}: no line of {path} has 'x'; they have id, text, more"
    )


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n"], ids=repr)
@pytest.mark.fault("file.nothing")
def test_a_shard_without_lines_is_refused(tmp_path: Path, content: bytes) -> None:
    path = _file(tmp_path, content)
    assert "has no rows; an empty source is refused" in _refusal(_source(path))
