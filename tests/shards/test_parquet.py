"""Parquet shards: planned from footers, each row read once, types as they were."""

import datetime
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.plan import plan_work
from pipeline.stages.source import read_units
from tests.shards import (
    ROUTINGS,
    adapter_of,
    assert_each_row_is_read_once,
    groups_of,
    job,
    read_all,
)


def _source(uri: object, **changes: object) -> dict[str, Any]:
    base = {"uri": str(uri), "format": "parquet", "id": "id", "text": "text", "task": "code.query"}
    return base | changes


def _write(path: Path, groups: list[list[str | None]]) -> list[str | None]:
    """A shard with one row group for each list of tasks; returns the tasks of its rows."""
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("task", pa.string())])
    number = 0
    with pq.ParquetWriter(path, schema) as writer:
        for tasks in groups:
            numbers = range(number, number + len(tasks))
            columns = {"id": list(numbers), "text": [f"text {n}" for n in numbers], "task": tasks}
            writer.write_table(pa.table(columns, schema=schema), row_group_size=max(1, len(tasks)))
            number += len(tasks)
    return [task for tasks in groups for task in tasks]


_GROUPS = st.lists(
    st.lists(st.sampled_from(ROUTINGS), min_size=1, max_size=9), min_size=1, max_size=5
)
_UNIT_ROWS = st.integers(1, 12)


@given(groups=_GROUPS, unit_rows=_UNIT_ROWS)
def test_units_cover_each_row_once_whatever_the_groups_and_the_routing(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[str | None]], unit_rows: int
) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.parquet"
    tasks = _write(path, groups)
    found = read_all(_source(path, task={"column": "task"}), unit_rows)
    assert_each_row_is_read_once(found, tasks, unit_rows)
    assert found.plan.rows_by_adapter == Counter(map(adapter_of, tasks))
    assert found.column("id") == list(range(len(tasks)))
    assert found.column("text") == [b"text %d" % number for number in range(len(tasks))]


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), unit_rows=_UNIT_ROWS)
def test_units_cover_each_row_once_when_all_have_one_task(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], unit_rows: int
) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.parquet"
    _write(path, [[None] * size for size in sizes])
    found = read_all(_source(path), unit_rows)
    assert_each_row_is_read_once(found, ["code.query"] * sum(sizes), unit_rows)


@given(groups=_GROUPS, unit_rows=_UNIT_ROWS, data=st.data())
def test_any_of_the_units_of_a_segment_can_be_read_alone(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[list[str | None]],
    unit_rows: int,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("shard") / "a.parquet"
    _write(path, groups)
    spec = job(_source(path, task={"column": "task"}), unit_rows)
    plan = plan_work(spec, 602112)
    whole = dict(
        pair for g in groups_of(plan) for pair in read_units(spec.sources[0], g, plan.id_type, [])
    )
    group = data.draw(st.sampled_from(groups_of(plan)))
    chosen = [unit for unit in group if data.draw(st.booleans())] or group[-1:]
    read = list(read_units(spec.sources[0], chosen, plan.id_type, []))
    assert [unit for unit, _ in read] == chosen
    assert all(table.equals(whole[unit]) for unit, table in read)


def _count_opens(
    path: Path, groups: list[list[str | None]], unit_rows: int, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[int, int]]:
    """(how often a row group was opened, how many adapters have rows in it) of each."""
    _write(path, groups)
    opened: Counter[int] = Counter()
    original: Callable[..., Iterator[pa.RecordBatch]] = pq.ParquetFile.iter_batches

    def count(file: pq.ParquetFile, *args: Any, **named: Any) -> Iterator[pa.RecordBatch]:
        opened.update(named["row_groups"])
        return original(file, *args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetFile, "iter_batches", count)
        read_all(_source(path, task={"column": "task"}), unit_rows)
    return [(opened[i], len(set(map(adapter_of, tasks)))) for i, tasks in enumerate(groups)]


THREE = ("retrieval.query", "code.query", "text-matching")


def test_a_row_group_is_opened_once_for_each_adapter_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[list[str | None]] = [list(THREE) * 8, ["code.query"] * 20, list(THREE[:2]) * 7]
    counted = _count_opens(tmp_path / "a.parquet", groups, 4, monkeypatch)
    assert counted == [(3, 3), (1, 1), (2, 2)]


def test_small_row_groups_are_not_opened_for_adapters_they_have_no_rows_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[list[str | None]] = [[task] * 3 for task in THREE]
    counted = _count_opens(tmp_path / "a.parquet", groups, 100, monkeypatch)
    assert all(opens <= adapters for opens, adapters in counted), counted


@pytest.mark.fault("file.huge_row_group")
def test_a_huge_row_group_is_streamed_in_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "a.parquet", [["code.query"] * 1000])
    sizes: dict[str, list[int]] = defaultdict(list)
    original: Callable[..., Iterator[pa.RecordBatch]] = pq.ParquetFile.iter_batches

    def record(file: pq.ParquetFile, *args: Any, **named: Any) -> Iterator[pa.RecordBatch]:
        for batch in original(file, *args, **named):
            sizes["rows"].append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", record)
    assert read_all(_source(tmp_path / "a.parquet"), 50).plan.rows == 1000
    assert max(sizes["rows"]) == 50


def test_planning_reads_no_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "a.parquet", [list(THREE) * 5])
    asked: list[list[str]] = []
    original = pq.ParquetFile.read_row_groups

    def record(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> pa.Table:
        asked.append(columns)
        return original(file, groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", record)
    monkeypatch.delattr(pq.ParquetFile, "iter_batches")
    plan_work(job(_source(tmp_path / "a.parquet", task={"column": "task"})), 602112)
    assert asked == [["task"]]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int64(), [2**62, None, -1]),
        (pa.uint32(), [1, 2, 2**32 - 1]),
        (pa.string(), ["1", "", "ключ\n../x"]),
        (pa.large_string(), ["a", "b", "c"]),
        (pa.binary(16), [uuid.UUID(int=n).bytes for n in (0, 1, 2**128 - 1)]),
        (pa.date32(), [datetime.date(2020, 2, 29), datetime.date(1969, 1, 1), None]),
        (pa.timestamp("us", "UTC"), [datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)] * 3),
    ],
    ids=str,
)
@pytest.mark.fault("id.types")
def test_ids_keep_their_type_and_value(tmp_path: Path, kind: pa.DataType, values: Any) -> None:
    table = pa.table({"id": pa.array(values, kind), "text": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_all(_source(tmp_path / "a.parquet"), 2)
    assert found.plan.id_type == kind
    assert found.column("id") == values
    assert all(rows.schema.field("id").type == kind for _, rows in found.units)


def test_dictionary_columns_are_read_as_what_they_hold(tmp_path: Path) -> None:
    words = pa.array(["code.query", "retrieval.query", "code.query"]).dictionary_encode()
    table = pa.table({"id": words, "text": words, "task": words})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_all(_source(tmp_path / "a.parquet", task={"column": "task"}))
    assert found.plan.id_type == pa.string()
    assert found.column("id") == found.column("task") == words.to_pylist()
    assert found.column("text") == [word.encode() for word in words.to_pylist()]


def test_kept_columns_keep_their_types(tmp_path: Path) -> None:
    kinds = {
        "tags": pa.list_(pa.string()),
        "price": pa.decimal128(9, 2),
        "day": pa.date32(),
        "where": pa.struct([("lat", pa.float32())]),
        "flag": pa.bool_(),
    }
    rows = [
        {"tags": ["x", "y"], "price": None, "day": datetime.date(2020, 1, 2), "where": None},
        {"tags": [], "price": None, "day": None, "where": {"lat": 0.5}, "flag": True},
    ]
    columns = {name: pa.array([row.get(name) for row in rows], k) for name, k in kinds.items()}
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"], **columns}), tmp_path / "a.parquet")
    found = read_all(_source(tmp_path / "a.parquet", keep=list(kinds)))
    assert {field.name: field.type for field in found.plan.kept} == kinds
    assert found.column("kept") == [{name: row.get(name) for name in kinds} for row in rows]


@pytest.mark.fault("text.invalid_utf8")
def test_text_that_is_not_utf8_reaches_preparation_as_its_bytes(tmp_path: Path) -> None:
    bad = pa.array([b"fine", b"\xff\xfe", b""], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": [1, 2, 3], "text": bad}), tmp_path / "a.parquet")
    assert read_all(_source(tmp_path / "a.parquet")).column("text") == [b"fine", b"\xff\xfe", b""]


def test_a_task_that_is_not_utf8_is_a_task_that_does_not_exist(tmp_path: Path) -> None:
    bad = pa.array([b"code.query", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"], "task": bad}), tmp_path / "a.pq")
    assert read_all(_source(tmp_path / "a.pq", task={"column": "task"})).plan.rows == 2


@pytest.mark.fault("file.no_rows")
def test_an_empty_row_group_before_a_large_one_is_passed_over(tmp_path: Path) -> None:
    tasks = _write(tmp_path / "a.parquet", [[], ["code.query"] * 3])
    assert_each_row_is_read_once(read_all(_source(tmp_path / "a.parquet"), 2), tasks, 2)
