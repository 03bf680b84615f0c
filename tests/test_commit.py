"""The commit protocol: what an append may find there, and what may not be committed at all."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import commit as committing
from pipeline.commit import (
    Snapshot,
    commit,
    demand_fit,
    digest,
    find_snapshot,
    reconcile,
)
from pipeline.dataset import open_dataset
from pipeline.errors import CommitConflict, ConservationError, OutputError, RunError
from pipeline.folder import Folder
from pipeline.log import entry_name, list_versions, newest_entry, read_entry
from pipeline.manifest import Manifest, Part, parts_of
from pipeline.schema import output_schema, vector_fields
from pipeline.spec import LimitsSpec
from pipeline.storage import StoredObject
from pipeline.verdict import demand_healthy
from pipeline.work import Receipt, Segment, WorkUnit, WrittenFile

MADE_BY = hashlib.sha256(b"made by").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def _schema(id_type: pa.DataType | None = None, dim: int = 4, *kept: pa.Field) -> pa.Schema:
    vectors = vector_fields(dim=dim, single_dtype="float32", multi_dim=None, multi_dtype="")
    return output_schema(id_type or pa.int64(), kept, vectors, {"fingerprint": MADE_BY})


def _unit(number: int, rows: int = 3) -> WorkUnit:
    shard = StoredObject(uri=f"s3://b/{number}.parquet", size=10, etag=str(number))
    segment = Segment(source=0, shard=shard, first_row=0, rows=rows, row_groups=(0,))
    return WorkUnit(shard="s", segment=segment, reading="", adapter="code", start=0, stop=rows)


def _receipt(unit: WorkUnit, **changes: Any) -> Receipt:
    """The receipt of a unit that lost one row to quarantine."""
    rows = unit.rows
    file = WrittenFile(path="data/x.arrow", sha256="0" * 64, size=1, rows=rows - 1)
    receipt = Receipt(
        unit=unit.key(MADE_BY),
        adapter=unit.adapter,
        rows=rows,
        items=rows,
        embedded={"text": rows - 1},
        quarantined={"null_input": 1},
        tokens=7 * rows,
        data=file,
        quarantine=dataclasses.replace(file, path="quarantine/x.arrow", rows=1),
    )
    return dataclasses.replace(receipt, **changes)


def _commit(folder: Folder, source_digest: str = "d", schema: pa.Schema | None = None) -> Any:
    return commit(folder, _snapshot(source_digest, schema), newest_entry(folder))


def _snapshot(source_digest: str = "d", schema: pa.Schema | None = None) -> Snapshot:
    unit = _unit(1)
    return Snapshot(
        manifest=Manifest.of([], parts_of(unit.shard, _receipt(unit))),
        schema=schema or _schema(),
        fingerprint=MADE_BY,
        source_digest=source_digest,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "dataset"))


def test_receipts_come_back_in_the_order_of_the_plan() -> None:
    units = [_unit(number) for number in range(4)]
    receipts = [_receipt(unit) for unit in units]
    assert reconcile(_keyed(units), _by_unit(receipts[::-1])) == receipts


def _keyed(units: list[WorkUnit]) -> dict[str, WorkUnit]:
    return {unit.key(MADE_BY): unit for unit in units}


def _by_unit(receipts: list[Receipt]) -> dict[str, Receipt]:
    return {receipt.unit: receipt for receipt in receipts}


@pytest.mark.parametrize(
    "lose",
    [
        lambda receipts: receipts[:-1],
        lambda receipts: [receipts[0], receipts[0], receipts[2]],
        lambda receipts: [*receipts, _receipt(_unit(99))],
        lambda receipts: [*receipts[:-1], _receipt(_unit(99))],
        lambda receipts: [],
    ],
    ids=["missing", "twice for another", "unplanned", "unplanned for another", "none"],
)
def test_a_receipt_too_few_or_too_many_is_refused(
    lose: Callable[[list[Receipt]], list[Receipt]],
) -> None:
    units = [_unit(number) for number in range(3)]
    with pytest.raises(ConservationError, match=r"3 units were planned.*nothing was committed"):
        reconcile(_keyed(units), _by_unit(lose([_receipt(unit) for unit in units])))


_WRITTEN = WrittenFile(path="data/x.arrow", sha256="0" * 64, size=1, rows=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 2},
        {"rows": 4},
        {"items": 4},
        {"embedded": {"text": 3}},
        {"embedded": {"text": 1}},
        {"quarantined": {}},
        {"data": None},
        {"quarantine": None},
        {"data": dataclasses.replace(_WRITTEN, rows=3)},
        {"embedded": {"text": 2, "image": 1}},
    ],
    ids=str,
)
def test_rows_that_do_not_add_up_are_refused(changes: dict[str, Any]) -> None:
    unit = _unit(1)
    with pytest.raises(ConservationError, match=r"s3://b/1.parquet: 3 rows planned"):
        reconcile(_keyed([unit]), _by_unit([_receipt(unit, **changes)]))


def test_two_items_for_a_row_add_up() -> None:
    unit = _unit(1)
    data = dataclasses.replace(_WRITTEN, rows=5)
    receipt = _receipt(unit, items=6, embedded={"text": 3, "image": 2}, data=data)
    assert reconcile(_keyed([unit]), _by_unit([receipt])) == [receipt]


def test_versions_are_contiguous_and_name_their_parent(folder: Folder) -> None:
    entries = [_commit(folder, f"digest {number}") for number in range(3)]
    assert [entry.version for entry in entries] == [1, 2, 3] == list_versions(folder)
    assert [entry.parent for entry in entries] == [0, 1, 2]
    assert [read_entry(folder, entry.version) for entry in entries] == entries
    assert (entries[0].rows, entries[0].quarantined) == (2, 1)
    newest = newest_entry(folder)
    assert find_snapshot(newest, "digest 2", MADE_BY) == entries[2]
    assert find_snapshot(newest, "digest 1", MADE_BY) is None
    assert find_snapshot(newest, "digest 2", OTHER) is None
    assert find_snapshot(None, "digest 2", MADE_BY) is None


class Unlucky(Folder):
    """A folder whose first creates of a log entry lose the reply, before or after the write."""

    def __init__(self, uri: str, error: Exception, *, applied: bool, first: bytes = b"") -> None:
        super().__init__(uri)
        self._error, self._applied, self._first = error, applied, first

    def create(self, name: str, data: bytes) -> None:
        if not name.startswith("log/"):
            return super().create(name, data)
        if self._first:
            super().put(name, self._first)
        elif self._applied:
            super().create(name, data)
        raise self._error


LOST = [OSError("connection reset"), TimeoutError("read timed out"), FileExistsError("412")]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
@pytest.mark.fault("store.lost_reply")
def test_a_write_whose_reply_is_lost_is_found_by_reading_back(
    folder: Folder, error: Exception
) -> None:
    entry = _commit(Unlucky(folder.uri, error, applied=True))
    assert list_versions(folder) == [1]
    assert read_entry(folder, 1) == entry


@pytest.mark.parametrize("error", LOST[:2], ids=lambda error: type(error).__name__)
def test_a_write_that_did_not_happen_is_an_error_and_commits_nothing(
    folder: Folder, error: Exception
) -> None:
    with pytest.raises(type(error)):
        _commit(Unlucky(folder.uri, error, applied=False))
    assert list_versions(folder) == []
    with pytest.raises(OutputError, match="holds no committed dataset"):
        open_dataset(folder.uri)


def _entry_of(folder: Folder, tmp_path: Path, source_digest: str) -> bytes:
    """The log entry that another driver would write."""
    elsewhere = Folder(str(tmp_path / "elsewhere"))
    _commit(elsewhere, source_digest)
    return elsewhere.get(entry_name(1))


@pytest.mark.fault("compute.two_runs")
def test_another_drivers_entry_for_the_same_work_is_taken_for_ours(
    folder: Folder, tmp_path: Path
) -> None:
    theirs = _entry_of(folder, tmp_path, "same")
    entry = _commit(Unlucky(folder.uri, FileExistsError(), applied=False, first=theirs), "same")
    assert entry.commit_id == json.loads(theirs)["commit_id"]
    assert folder.get(entry_name(1)) == theirs


def test_another_drivers_entry_for_other_work_is_a_conflict(folder: Folder, tmp_path: Path) -> None:
    theirs = _entry_of(folder, tmp_path, "theirs")
    with pytest.raises(CommitConflict, match="another driver committed version 1 meanwhile"):
        _commit(Unlucky(folder.uri, FileExistsError(), applied=False, first=theirs), "ours")
    assert folder.get(entry_name(1)) == theirs


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (_schema(pa.string()), "column 'id' is int64 in the dataset, and string in this job"),
        (_schema(dim=8), r"'embedding' is fixed_size_list<item: float>\[4\] in the dataset"),
        (_schema(None, 4, pa.field("title", pa.string())), "only this job has the column 'title'"),
    ],
    ids=["id type", "dim", "kept column"],
)
def test_an_output_of_another_schema_is_refused(
    folder: Folder, schema: pa.Schema, expected: str
) -> None:
    newest = _commit(folder)
    with pytest.raises(OutputError, match=f"output.uri: .*{expected}"):
        demand_fit(folder, newest, schema, [MADE_BY])


@pytest.mark.fault("compute.two_configs")
def test_an_output_made_another_way_is_refused(folder: Folder) -> None:
    demand_fit(folder, None, _schema(), [OTHER])  # nothing there yet: anything fits
    newest = _commit(folder)
    demand_fit(folder, newest, _schema(), [OTHER, MADE_BY])
    with pytest.raises(OutputError, match=f"fingerprint {MADE_BY[:8]}, this job has {OTHER[:8]}"):
        demand_fit(folder, newest, _schema(), [OTHER])


def test_the_log_entry_is_written_last_after_what_it_leads_to(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    for name in ("put", "create"):
        original = getattr(Folder, name)

        def record(
            self: Folder, path: str, data: bytes, original: Callable[..., None] = original
        ) -> None:
            written.append(path)
            original(self, path, data)

        monkeypatch.setattr(Folder, name, record)
    entry = _commit(folder)
    assert written == ["format.json", entry.manifest, entry_name(1)]


def test_the_digest_is_that_of_the_work_and_not_of_its_order() -> None:
    units = [_unit(1), _unit(2)]
    found = digest(units, MADE_BY)
    assert digest(units[::-1], MADE_BY) == found
    assert digest(units[:1], MADE_BY) != found
    assert digest(units, OTHER) != found
    assert digest([_unit(1), _unit(2, rows=4)], MADE_BY) != found


def test_the_entry_names_the_software(folder: Folder) -> None:
    assert {"python", "nightjar", "pyarrow", "torch"} <= _commit(folder).versions.keys()
    assert committing.RECORDED


def test_a_snapshot_committed_since_the_run_began_is_not_built_over(folder: Folder) -> None:
    _commit(folder, "theirs")
    with pytest.raises(CommitConflict, match="another driver committed version 1"):
        commit(folder, _snapshot("ours"), None)
    assert list_versions(folder) == [1]


_EVIL = Receipt(
    unit="u",
    adapter="code",
    rows=100,
    items=100,
    embedded={"text": 97},
    quarantined={"empty_input": 2, "oom": 1},
    tokens=1,
    data=None,
    quarantine=None,
)


def test_too_many_items_set_aside_are_refused_with_the_way_out() -> None:
    demand_healthy(_manifest(97, 3), [_EVIL], LimitsSpec(quarantine_share=0.03))
    with pytest.raises(
        RunError,
        match=r"quarantine_share: 0.029, but 3.00% of the 100 items .*"
        r"2 empty_input, 1 oom.*run the same command again",
    ):
        demand_healthy(_manifest(97, 3), [_EVIL], LimitsSpec(quarantine_share=0.029))
    assert LimitsSpec().quarantine_share == 0.01


def test_a_run_that_embedded_nothing_is_refused_whatever_the_limit() -> None:
    with pytest.raises(RunError, match="all 3 items were quarantined"):
        demand_healthy(_manifest(0, 3), [_EVIL], LimitsSpec(quarantine_share=1.0))


def _manifest(embedded: int, aside: int) -> Manifest:
    """Of a snapshot with so many embeddings, and so many items set aside."""
    file = WrittenFile(path="data/x.arrow", sha256="0" * 64, size=1, rows=0)
    parts = [
        Part(
            kind=kind,
            shard="s",
            unit="u",
            adapter="code",
            file=dataclasses.replace(file, path=f"{kind}/x.arrow", rows=rows),
        )
        for kind, rows in (("data", embedded), ("quarantine", aside))
    ]
    return Manifest.of([], parts)
