"""When two rows are the same: every way in which they may differ is another sign."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.nightly.signs import content_of, contents_of, signs, values_of
from pipeline.schema import HASH, output_schema

_ROW = {
    "shard": "s",
    "id": 1,
    "task": "code.query",
    "modality": "text",
    "source_hash": b"h" * 32,
    "kept": ("a", None, 1.5),
}


def _schema(id_type: pa.DataType, *types: pa.DataType) -> pa.Schema:
    kept = [pa.field(f"k{number}", kind) for number, kind in enumerate(types)]
    return output_schema(id_type, kept, [], {})


_TYPES = (pa.string(), pa.string(), pa.float64())


def _signs(schema: pa.Schema | None = None, **changes: Any) -> dict[str, bytes]:
    row = _ROW | changes
    table = signs(
        row["shard"],
        schema or _schema(pa.int64(), *_TYPES),
        pa.array([row["id"]]),
        pa.array([row["task"]]),
        pa.array([row["modality"]]),
        pa.array([row["source_hash"]], HASH),
        [pa.array([value]) for value in row["kept"]],
    )
    (found,) = table.to_pylist()
    return found


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"shard": "t"}, ["sign"]),
        ({"id": 2}, ["sign", "name"]),
        ({"id": "1"}, ["sign", "name"]),
        ({"id": b"1"}, ["sign", "name"]),
        ({"task": "code.passage"}, ["sign", "name", "content"]),
        ({"modality": "image"}, ["sign", "name"]),
        ({"source_hash": b"i" * 32}, ["sign", "content"]),
        ({"kept": ("a", "None", 1.5)}, ["sign"]),
        ({"kept": ("a", None, 1)}, ["sign"]),
        ({"kept": ("a", "", 1.5)}, ["sign"]),
        ({"kept": (None, "a", 1.5)}, ["sign"]),
        ({"kept": ("a', None, 1.5", None, 1.5)}, ["sign"]),
        ({}, []),
    ],
    ids=str,
)
def test_each_change_is_another_sign_of_just_what_it_concerns(
    changes: dict[str, Any], other: list[str]
) -> None:
    before, after = _signs(), _signs(**changes)
    assert {name for name in before if before[name] != after[name]} == set(other)


@pytest.mark.parametrize(
    "schema",
    [
        _schema(pa.int32(), *_TYPES),
        _schema(pa.int64(), pa.large_string(), pa.string(), pa.float64()),
        _schema(pa.int64(), pa.string(), pa.string(), pa.float32()),
    ],
    ids=["id", "text", "number"],
)
def test_a_value_of_another_type_is_another_value(schema: pa.Schema) -> None:
    assert _signs(schema)["sign"] != _signs()["sign"]


def test_parts_do_not_run_into_each_other() -> None:
    assert _signs(id="1 2")["name"] != _signs(id="1", task="2code.query")["name"]


@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.binary(min_size=32, max_size=32)), max_size=9
    ),
    start=st.integers(0, 3),
)
def test_the_content_of_a_row_is_that_of_a_column_also_in_a_slice(
    rows: list[tuple[str, bytes]], start: int
) -> None:
    tasks = pa.array([task for task, _ in rows], pa.string()).slice(start)
    hashes = pa.array([found for _, found in rows], HASH).slice(start)
    assert contents_of(tasks, hashes).to_pylist() == [content_of(*row) for row in rows[start:]]


def test_one_content_for_another_task_is_another() -> None:
    found = contents_of(pa.array(["a", "b", "a"]), pa.array([b"h" * 32] * 3, HASH)).to_pylist()
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (pa.timestamp("s"), 10**12, 10**12 + 1),
        (pa.timestamp("ns"), 1, 2),
        (pa.timestamp("ns", "UTC"), 1, 2),
        (pa.duration("ns"), 1, 2),
        (pa.date32(), 10**7, 10**7 + 1),
        (pa.time64("ns"), 1, 2),
        (pa.float64(), float("nan"), 0.0),
        (pa.list_(pa.timestamp("ns")), [1, 2], [1, 3]),
        (pa.list_(pa.int8()), [1], None),
        (pa.struct([("a", pa.timestamp("ns")), ("b", pa.int8())]), (1, 2), (1, 3)),
        (pa.map_(pa.string(), pa.int8()), [("a", 1)], [("a", 2)]),
        (pa.decimal128(9, 2), 1, 2),
    ],
    ids=str,
)
def test_values_of_any_kind_have_a_sign(kind: pa.DataType, one: Any, other: Any) -> None:
    def spelled(value: Any) -> str:
        if pa.types.is_struct(kind):
            parts = [
                pa.array([v], pa.int64()).cast(f.type) for v, f in zip(value, kind, strict=True)
            ]
            return repr(values_of(pa.StructArray.from_arrays(parts, fields=list(kind))))
        if pa.types.is_list(kind) and pa.types.is_temporal(kind.value_type):
            return repr(values_of(pa.array([value], pa.list_(pa.int64())).cast(kind)))
        if pa.types.is_temporal(kind):
            wide = pa.int32() if kind.bit_width == 32 else pa.int64()
            return repr(values_of(pa.array([value], wide).cast(kind)))
        return repr(values_of(pa.array([value], kind)))

    assert spelled(one) == spelled(one) != spelled(other)


def test_a_struct_with_a_field_name_twice_and_slices_have_their_values() -> None:
    parts = [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
    twice = pa.StructArray.from_arrays(parts, fields=[pa.field("x", p.type) for p in parts])
    assert values_of(twice.slice(1)) == [(2, "b"), (3, "c")]
    lists = pa.array([[1], None, [2, 3], []])
    assert values_of(lists.slice(1)) == [None, [2, 3], []]
