"""When two rows are the same: every way in which they may differ is another sign."""

import datetime
from typing import Any

import pyarrow as pa
import pytest

from pipeline.nightly.signs import content_of, signs
from pipeline.schema import output_schema

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
        [row["id"]],
        [row["task"]],
        [row["modality"]],
        [row["source_hash"]],
        [row["kept"]],
    )
    (found,) = table.to_pylist()
    return found


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"shard": "t"}, {"sign"}),
        ({"id": 2}, {"sign", "name"}),
        ({"id": "1"}, {"sign", "name"}),
        ({"id": b"1"}, {"sign", "name"}),
        ({"task": "code.passage"}, {"sign", "name", "content"}),
        ({"modality": "image"}, {"sign", "name"}),
        ({"source_hash": b"i" * 32}, {"sign", "content"}),
        ({"kept": ("a", "None", 1.5)}, {"sign"}),
        ({"kept": ("a", None, 1)}, {"sign"}),
        ({"kept": ("a", "", 1.5)}, {"sign"}),
        ({"kept": (None, "a", 1.5)}, {"sign"}),
        ({"kept": ("a', None, 1.5", None, 1.5)}, {"sign"}),
        ({}, set()),
    ],
    ids=str,
)
def test_each_change_is_another_sign_of_just_what_it_concerns(
    changes: dict[str, Any], other: set[str]
) -> None:
    before, after = _signs(), _signs(**changes)
    assert {name for name in before if before[name] != after[name]} == other


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
    assert content_of("ab", b"c") != content_of("a", b"bc")
    assert _signs(id="1 2")["name"] != _signs(id="1", task="2code.query")["name"]


def test_values_of_any_kind_have_a_sign() -> None:
    at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    kept = ([1, 2], {"a": at}, float("nan"))
    assert _signs(kept=kept)["sign"] == _signs(kept=kept)["sign"]
    assert _signs(id="\ud800")["name"] != _signs(id="\ud801")["name"]
