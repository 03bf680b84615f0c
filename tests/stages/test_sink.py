"""The sink: a unit's files are whole, named per attempt, and the receipt says what is in them."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConservationError
from pipeline.folder import Folder
from pipeline.schema import embedded_schema, output_schema, quarantine_schema, vector_fields
from pipeline.stages.sink import Sink
from pipeline.work import WrittenFile

KEPT = (pa.field("title", pa.string()),)
VECTORS = vector_fields(dim=2, single_dtype="float16", multi_dim=None, multi_dtype="")
SCHEMA = output_schema(pa.string(), KEPT, VECTORS, {"fingerprint": "f" * 64})
UNIT = "u" * 32


def _items(*items: tuple[int, str | None, str | None]) -> pa.Table:
    """Embedded items of (row, modality, reason)."""
    schema = embedded_schema(pa.string(), KEPT, VECTORS)
    rows = [
        {
            "row": row,
            "locator": f"s#row={row}",
            "id": f"id {row}",
            "modality": modality,
            "task": "code.query",
            "source_hash": hashlib.sha256(b"%d" % row).digest() if modality else None,
            "kept": {"title": f"t{row}"},
            "n_tokens": 0 if reason else row + 1,
            "truncated": False,
            "embedding": None if reason else [0.5, row],
            "reason": reason,
            "stage": reason and "prepare",
            "message": reason and "why",
        }
        for row, modality, reason in items
    ]
    return pa.Table.from_pylist(rows, schema)


def _read(folder: Folder, file: WrittenFile) -> pa.Table:
    data = folder.get(file.path)
    assert hashlib.sha256(data).hexdigest() == file.sha256
    assert len(data) == file.size
    with pa.ipc.open_file(pa.py_buffer(data)) as opened:
        table = opened.read_all()
    assert table.num_rows == file.rows
    return table


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_embeddings_and_rows_set_aside_go_to_files_of_their_own(folder: Folder) -> None:
    items = _items((4, "text", None), (4, "image", "not_an_image"), (5, None, "null_id"))
    receipt = Sink(folder, SCHEMA, "ab" * 32)(items, UNIT, "code")
    assert (receipt.unit, receipt.adapter) == (UNIT, "code")
    assert (receipt.rows, receipt.items, receipt.tokens) == (2, 3, 5)
    assert receipt.embedded == {"text": 1}
    assert receipt.quarantined == {"not_an_image": 1, "null_id": 1}
    assert receipt.data is not None
    assert receipt.quarantine is not None
    data = _read(folder, receipt.data)
    assert data.schema.equals(SCHEMA, check_metadata=True)
    (row,) = data.to_pylist()
    assert (row["id"], row["title"], row["embedding"]) == ("id 4", "t4", [0.5, 4.0])
    aside = _read(folder, receipt.quarantine)
    assert aside.schema.names == quarantine_schema(pa.string()).names
    assert [(r["id"], r["modality"], r["reason"], r["locator"]) for r in aside.to_pylist()] == [
        ("id 4", "image", "not_an_image", "s#row=4"),
        ("id 5", None, "null_id", "s#row=5"),
    ]
    assert receipt.data.path.startswith(f"data/abababab/{UNIT}-")
    assert receipt.quarantine.path.startswith(f"quarantine/abababab/{UNIT}-")


def test_rows_set_aside_have_the_quarantine_schema(folder: Folder) -> None:
    receipt = Sink(folder, SCHEMA, "f" * 64)(_items((0, None, "null_id")), UNIT, "code")
    assert receipt.quarantine is not None
    assert _read(folder, receipt.quarantine).schema.equals(quarantine_schema(pa.string()))


def test_a_file_without_rows_is_not_written(folder: Folder, tmp_path: Path) -> None:
    sink = Sink(folder, SCHEMA, "f" * 64)
    well = sink(_items((0, "text", None)), UNIT, "code")
    assert well.quarantine is None
    assert not (tmp_path / "quarantine").exists()
    aside = sink(_items((0, None, "null_input")), "v" * 32, "code")
    assert aside.data is None
    assert aside.tokens == 0
    assert len(list(tmp_path.rglob("data/*/*"))) == 1


def test_every_attempt_has_files_of_its_own_and_the_first_counts(
    folder: Folder, tmp_path: Path
) -> None:
    sink, items = Sink(folder, SCHEMA, "f" * 64), _items((0, "text", None), (1, "text", None))
    first, second = (sink(items, UNIT, "code") for _ in range(2))
    assert second == first
    written = sorted(path.read_bytes() for path in tmp_path.rglob("data/*/*.arrow"))
    assert len(written) == 2
    assert written[0] == written[1]


def test_a_unit_that_is_done_again_is_recorded_under_its_revision(folder: Folder) -> None:
    first = Sink(folder, SCHEMA, "f" * 64)(_items((0, "text", None)), UNIT, "code")
    again = Sink(folder, SCHEMA, "f" * 64, {UNIT: 1})(_items((0, "text", None)), UNIT, "code")
    assert again.data != first.data
    assert folder.names("work/ffffffff") == [f"{UNIT}.0.json", f"{UNIT}.1.json"]


@pytest.mark.parametrize("modality", ["text", None])
def test_an_item_that_is_there_twice_is_refused_and_nothing_is_written(
    folder: Folder, tmp_path: Path, modality: str | None
) -> None:
    reason = None if modality else "null_input"
    items = _items((0, "text", None), (7, modality, reason), (7, modality, reason))
    with pytest.raises(ConservationError, match=f"unit {UNIT}: row 7 is there twice as {modality}"):
        Sink(folder, SCHEMA, "f" * 64)(items, UNIT, "code")
    assert not list(tmp_path.rglob("*.arrow"))


@pytest.mark.fault("store.writer_raises")
def test_a_write_that_fails_leaves_no_file(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("pipeline.storage.os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        Sink(folder, SCHEMA, "f" * 64)(_items((0, "text", None)), UNIT, "code")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


_ROW = st.lists(
    st.tuples(st.sampled_from(["text", "image"]), st.sampled_from([None, "empty_input", "x"])),
    min_size=1,
    max_size=2,
    unique_by=lambda item: item[0],
)


@given(rows=st.lists(_ROW, min_size=1, max_size=8))
def test_the_receipt_accounts_for_every_item(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[str, str | None]]]
) -> None:
    folder = Folder(str(tmp_path_factory.mktemp("sink")))
    items = [(n, modality, reason) for n, row in enumerate(rows) for modality, reason in row]
    receipt = Sink(folder, SCHEMA, "f" * 64)(_items(*items), UNIT, "code")
    assert receipt.rows == len(rows)
    assert receipt.items == len(items)
    assert receipt.embedded == Counter(m for _, m, reason in items if reason is None)
    assert receipt.quarantined == Counter(reason for *_, reason in items if reason is not None)
    assert receipt.tokens == sum(n + 1 for n, _, reason in items if reason is None)
    written: list[Any] = []
    for file in (receipt.data, receipt.quarantine):
        written += _read(folder, file)["id"].to_pylist() if file else []
    assert Counter(written) == Counter(f"id {n}" for n, *_ in items)
