"""Of a unit that is tried again only the rows that were to be tried come back, and all of them."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import ConservationError
from pipeline.folder import Folder
from pipeline.records import Records
from pipeline.schema import embedded_schema, output_schema, vector_fields
from pipeline.stages.again import Earlier
from pipeline.stages.sink import Sink
from pipeline.work import Receipt

_MADE_BY = "f" * 64
_UNIT = "u" * 32
_VECTORS = vector_fields(dim=2, single_dtype="float32", multi_dim=None, multi_dtype="")
_SCHEMA = output_schema(pa.int64(), (), _VECTORS, {"fingerprint": _MADE_BY})


def _items(*items: tuple[int, str | None]) -> pa.Table:
    """Embedded texts of (row, reason)."""
    rows = [
        {
            "row": row,
            "locator": f"row={row}",
            "id": row,
            "modality": "text",
            "task": "code.query",
            "source_hash": hashlib.sha256(b"%d" % row).digest(),
            "kept": {},
            "n_tokens": 1,
            "truncated": False,
            "embedding": None if reason else [0.5, row],
            "reason": reason,
            "stage": reason and "prepare",
            "message": reason and "why",
        }
        for row, reason in items
    ]
    return pa.Table.from_pylist(rows, embedded_schema(pa.int64(), [], _VECTORS))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.fixture
def first(folder: Folder) -> Receipt:
    """Of four rows two are to be tried again, and one is not."""
    items = _items((0, None), (1, "oom"), (2, "oom"), (3, "null_input"))
    return Sink(folder, _SCHEMA, _MADE_BY)(items, _UNIT, "code")


def _again(folder: Folder, first: Receipt, items: pa.Table) -> Receipt:
    def earlier(unit: str) -> Earlier:
        return Earlier(folder, first, ["oom"])

    return Sink(folder, _SCHEMA, _MADE_BY, {_UNIT: 1}, earlier)(items, _UNIT, "code")


def test_what_goes_well_now_is_joined_with_what_was_there(folder: Folder, first: Receipt) -> None:
    found = _again(folder, first, _items((1, None), (2, "oom")))
    assert (found.rows, found.items, found.tokens) == (4, 4, 2)
    assert found.embedded == {"text": 2}
    assert found.quarantined == {"oom": 1, "null_input": 1}
    assert Records(folder, _MADE_BY).standing([_UNIT], ()).receipts == {_UNIT: found}


@pytest.mark.parametrize(
    "rows", [(1,), (1, 3), (0, 1, 2), ()], ids=["lost", "other", "more", "none"]
)
def test_other_rows_than_those_that_were_to_be_tried_are_refused(
    folder: Folder, first: Receipt, rows: tuple[int, ...]
) -> None:
    with pytest.raises(ConservationError, match=f"unit {_UNIT}: the rows that came back are not"):
        _again(folder, first, _items(*((row, None) for row in rows)))
    assert Records(folder, _MADE_BY).standing([_UNIT], ()).receipts == {_UNIT: first}


def test_only_the_rows_to_be_tried_are_read_again(folder: Folder, first: Receipt) -> None:
    rows = pa.table({"row": range(4), "text": list("abcd"), "image": pa.nulls(4, pa.binary())})
    for name in ("reason", "stage", "message"):
        rows = rows.append_column(name, pa.nulls(4, pa.string()))
    found = Earlier(folder, first, ["oom"]).rows(rows)
    assert found.select(["row", "text"]).to_pylist() == [
        {"row": 1, "text": "b"},
        {"row": 2, "text": "c"},
    ]
