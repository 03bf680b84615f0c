"""What planning learned of a shard is asked for once, and is never out of date."""

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.folder import Folder
from pipeline.manifest import INSPECTIONS
from pipeline.shards import jsonl
from pipeline.shards.remembered import Remembered, _from_bytes, _to_bytes
from pipeline.shards.shape import Inspected
from pipeline.spec import JobSpec
from pipeline.stages.plan import Plan, plan_work
from pipeline.storage import StoredObject
from pipeline.work import Segment
from tests.shards import job

_SHARD = StoredObject(uri="s3://x/y.jsonl", size=7, etag="e")


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that are opened for planning."""
    opened: list[str] = []
    original = jsonl._Scan.__init__

    def counted(self: Any, source: Any, shard: StoredObject) -> None:
        opened.append(Path(shard.uri).name)
        original(self, source, shard)

    monkeypatch.setattr(jsonl._Scan, "__init__", counted)
    return opened


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    for name in "ab":
        _write(tmp_path / f"{name}.jsonl", 5)
    return _spec(tmp_path)


def _spec(tmp_path: Path, **more: Any) -> JobSpec:
    source = {"uri": f"{tmp_path}/*.jsonl", "format": "jsonl", "id": "id", "text": "text"}
    return job(source | {"task": {"column": "task"}, "keep": ["n"]} | more, unit_rows=2)


def _write(path: Path, rows: int) -> None:
    tasks = ["code.query", "text-matching", None]
    lines = [
        {"id": f"{path.stem}{n}", "text": "x", "task": tasks[n % 3], "n": n} for n in range(rows)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))


def _plan(spec: JobSpec, folder: Folder, keep: bool = True) -> Plan:
    remembered = Remembered(folder)
    plan = plan_work(spec, 602112, remembered)
    if keep:
        remembered.keep()
    return plan


def test_a_shard_is_looked_at_once_and_again_when_it_or_its_reading_changes(
    tmp_path: Path, spec: JobSpec, looked: list[str]
) -> None:
    folder = Folder(str(tmp_path / "out"))
    first = _plan(spec, folder)
    assert sorted(looked) == ["a.jsonl", "b.jsonl"]
    assert _plan(spec, folder) == first
    assert len(looked) == 2
    _write(tmp_path / "b.jsonl", 6)
    assert _plan(spec, folder).rows == 11
    assert looked[2:] == ["b.jsonl"]
    _plan(_spec(tmp_path, keep=[]), folder)
    assert sorted(looked[3:]) == ["a.jsonl", "b.jsonl"]


def test_a_shard_of_the_same_size_and_other_content_is_looked_at_again(
    tmp_path: Path, spec: JobSpec, looked: list[str]
) -> None:
    folder, shard = Folder(str(tmp_path / "out")), tmp_path / "a.jsonl"
    _plan(spec, folder)
    content = shard.read_text()
    shard.write_text(content.replace("text-matching", "no-such-task!"))
    assert shard.stat().st_size == len(content)
    assert _plan(spec, folder) == _plan(spec, Folder(str(tmp_path / "fresh")), keep=False)
    assert looked[2] == "a.jsonl"


def test_units_of_another_size_are_cut_anew(tmp_path: Path, spec: JobSpec) -> None:
    folder = Folder(str(tmp_path / "out"))
    _plan(spec, folder)
    larger = spec.model_copy(update={"compute": spec.compute.model_copy(update={"unit_rows": 100})})
    assert _plan(larger, folder) == _plan(larger, Folder(str(tmp_path / "fresh")))


def test_a_look_that_named_no_row_does_not_hide_rows_that_are_there_twice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl"
    _write(path, 5)
    path.write_text("\n".join([path.read_text()] * 2))
    keeping, folder = _spec(tmp_path), Folder(str(tmp_path / "out"))
    _plan(keeping, folder)
    refusing = keeping.model_copy(
        update={"limits": keeping.limits.model_copy(update={"duplicate_ids": "refuse"})}
    )
    with pytest.raises(SourceError, match="ids are there more than once"):
        _plan(refusing, folder)


def test_nothing_is_written_before_it_is_kept(
    tmp_path: Path, spec: JobSpec, looked: list[str]
) -> None:
    folder = Folder(str(tmp_path / "out"))
    _plan(spec, folder, keep=False)
    assert not (tmp_path / "out").exists()
    _plan(spec, folder)
    assert len(folder.names(INSPECTIONS)) == 2
    assert len(looked) == 4


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_a_damaged_one_costs_a_look_at_the_shard_and_nothing_else(
    tmp_path: Path, spec: JobSpec, looked: list[str], damage: bytes | None
) -> None:
    folder = Folder(str(tmp_path / "out"))
    first = _plan(spec, folder)
    for name in folder.names(INSPECTIONS):
        path = f"{INSPECTIONS}/{name}"
        content = folder.get(path)
        at = len(content) // 2
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        folder.put(path, flipped if damage is None else damage)
    assert _plan(spec, folder) == first
    assert len(looked) == 4


def test_one_that_is_deleted_meanwhile_costs_a_look_at_the_shard_and_nothing_else(
    tmp_path: Path, spec: JobSpec, looked: list[str]
) -> None:
    folder = Folder(str(tmp_path / "out"))
    first = _plan(spec, folder)
    remembered = Remembered(folder)
    for name in folder.names(INSPECTIONS):
        folder.delete(f"{INSPECTIONS}/{name}")
    assert plan_work(spec, 602112, remembered) == first
    assert len(looked) == 4


def test_a_name_begins_with_the_shard_as_a_manifest_names_it(tmp_path: Path, spec: JobSpec) -> None:
    folder = Folder(str(tmp_path / "out"))
    states = {shard.state for shard in _plan(spec, folder).shards}
    assert {name.partition("-")[0] for name in folder.names(INSPECTIONS)} == states
    _write(tmp_path / "b.jsonl", 6)
    assert len({shard.state for shard in _plan(spec, folder).shards} - states) == 1


_TYPES = st.sampled_from([pa.string(), pa.int64(), pa.null(), pa.timestamp("us", "UTC")])
_SEGMENTS = st.lists(
    st.tuples(
        st.integers(0, 99),
        st.lists(st.integers(0, 9), max_size=3),
        st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
        st.dictionaries(st.sampled_from(["code", "retrieval"]), st.integers(1, 9)),
    ),
    max_size=3,
)


@given(
    _TYPES, st.dictionaries(st.text(max_size=3), _TYPES, max_size=3), _SEGMENTS, st.integers(0, 9)
)
def test_an_inspection_survives_its_bytes(
    id_type: pa.DataType, kept: dict[str, pa.DataType], segments: list[Any], rows: int
) -> None:
    found = Inspected(unit_rows=7, id_type=id_type, kept=kept)
    found.identities = np.random.default_rng(rows).integers(0, 2**64, rows, np.uint64)
    for first_row, groups, span, by_adapter in segments:
        found.segments.append(
            Segment(
                source=3,
                shard=_SHARD,
                first_row=first_row,
                rows=sum(by_adapter.values()),
                row_groups=tuple(groups),
                span=span,
            )
        )
        found.by_adapter.append(Counter(by_adapter))
    there = _from_bytes(_to_bytes(found), 3, _SHARD)
    np.testing.assert_array_equal(there.identities, found.identities)
    there.identities = found.identities
    assert there == found


def test_what_is_learned_is_held_once_until_it_is_kept(tmp_path: Path) -> None:
    remembered = Remembered(Folder(str(tmp_path)))
    found = Inspected(unit_rows=1, identities=np.arange(1_000_000, dtype=np.uint64))
    tracemalloc.start()
    try:
        remembered.add("name", found)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < found.identities.nbytes / 100
    remembered.keep()
    again = Remembered(Folder(str(tmp_path))).find("name", 0, _SHARD)
    assert again is not None
    assert np.array_equal(again.identities, found.identities)
