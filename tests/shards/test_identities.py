"""Rows of the same id and task are found before anything is embedded, and nothing else is."""

import json
import tarfile
import tracemalloc
from collections import Counter
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.shards import identities
from pipeline.shards.identities import Identities, repeated, same
from pipeline.spec import JobSpec
from pipeline.stages.plan import plan_work
from tests.jobs import embed, png, write_spec
from tests.shards import job

_IDS = (
    st.none()
    | st.integers(-3, 3)
    | st.sampled_from(["1", "", "a", "\ud800"])
    | st.binary(max_size=1)
)
_TASKS = st.sampled_from(["code.query", "code.passage", "no-such-task", None])
_SHARDS = st.lists(st.lists(st.tuples(_IDS, _TASKS), max_size=6), min_size=1, max_size=4)


@given(_SHARDS, st.booleans())
@pytest.mark.fault("id.duplicate", "id.types")
def test_exactly_the_pairs_that_are_there_twice_are_found(
    shards: list[list[tuple[Any, str | None]]], colliding: bool
) -> None:
    original = identities._hash
    with pytest.MonkeyPatch.context() as patch:
        if colliding:
            # hashes that meet without reason must not matter
            patch.setattr(identities, "_hash", lambda v, t: original(v, t) and 1 + hash(v) % 2)
        first = [Identities() for _ in shards]
        for found, rows in zip(first, shards, strict=True):
            found.add(*([part[at] for part in rows] for at in (0, 1)))
        suspects = repeated([found.hashes for found in first])
        again = [Identities(suspects=suspects) for _ in shards]
        for found, rows in zip(again, shards, strict=True):
            for pair in rows:
                found.add([pair[0]], [pair[1]])
        named = [(str(n), row) for n, found in enumerate(again) for row in found.named]
        twice = same(named)
    counted = Counter(
        (type(value), value, task)
        for rows in shards
        for value, task in rows
        if value is not None and task in ("code.query", "code.passage")
    )
    expected = {(repr(v), task): n for (_, v, task), n in counted.items() if n > 1}
    assert {key: len(places) for key, places in twice.items()} == expected


def test_what_repeats_is_found_in_a_fraction_of_the_memory_of_all_hashes() -> None:
    random = np.random.default_rng(0)
    hashes = [random.integers(1, 2**64, 50_000, np.uint64) for _ in range(20)]
    hashes[0][:3], hashes[19][-2:] = 0, hashes[1][:2]
    tracemalloc.start()
    try:
        found = repeated(hashes)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == set(hashes[1][:2].tolist())
    assert most < sum(some.nbytes for some in hashes) / 4


def _spec(source: dict[str, Any] | list[dict[str, Any]]) -> JobSpec:
    refusing = job(source)
    return refusing.model_copy(
        update={"limits": refusing.limits.model_copy(update={"duplicate_ids": "refuse"})}
    )


def _tar(path: Path, keys: list[str]) -> None:
    with tarfile.open(path, "w") as archive:
        for key in keys:
            member = tarfile.TarInfo(f"{key}.txt")
            member.size = 1
            archive.addfile(member, BytesIO(b"x"))


def _parquet(folder: Path) -> dict[str, Any]:
    for name, ids in (("1", [7, 8, None, None]), ("2", [9, 7, 10, 8])):
        pq.write_table(pa.table({"id": ids, "text": ["x"] * 4}), folder / f"{name}.parquet")
    return {"format": "parquet", "id": "id", "text": "text", "task": "code.query"}


def _jsonl(folder: Path) -> dict[str, Any]:
    for name, ids in (("1", [7, 8]), ("2", [9, 7, 10, 8])):
        lines = [json.dumps({"id": i, "text": "x"}) for i in ids]
        (folder / f"{name}.jsonl").write_text("\n".join(["{oops", *lines]))
    return {"format": "jsonl", "id": "id", "text": "text", "task": "code.query"}


def _webdataset(folder: Path) -> dict[str, Any]:
    for name, ids in (("1", "78"), ("2", ["9", "7", "10", "8"])):
        _tar(folder / f"{name}.tar", list(ids))
    return {"format": "webdataset", "task": "code.query"}


def test_a_row_is_named_by_its_number_in_the_shard_however_the_rows_came() -> None:
    ids = ["a", "b", "c", "b"]
    alone = Identities()
    alone.add(ids, "code.query")
    found = Identities(suspects=repeated([alone.hashes]))
    for number in range(0, len(ids), 2):
        found.add(ids[number : number + 2], "code.query")
    twice = same([("shard", row) for row in found.named])
    assert twice == {("'b'", "code.query"): ["shard row 1", "shard row 3"]}


def test_ids_of_two_types_that_are_equal_to_python_are_two() -> None:
    found = Identities()
    found.add([1, True, 1.0, "1", b"1", Decimal(1)], "code.query")
    assert repeated([found.hashes]) == set()


def test_a_row_whose_hash_happens_to_be_nobodys_is_somebody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Zero:
        def __init__(self, *_: object, **__: object) -> None: ...

        def digest(self) -> bytes:
            return bytes(8)

    monkeypatch.setattr(identities, "blake2b", Zero)
    found = Identities()
    found.add(["a", "a", None], "code.query")
    assert len(repeated([found.hashes])) == 1


_FORMATS = {"parquet": _parquet, "jsonl": _jsonl, "webdataset": _webdataset}


@pytest.mark.fault("id.duplicate")
@pytest.mark.parametrize("name", _FORMATS)
def test_every_format_refuses_an_id_that_is_there_twice_and_names_its_places(
    tmp_path: Path, name: str
) -> None:
    source = _FORMATS[name](tmp_path) | {"uri": str(tmp_path)}
    with pytest.raises(SourceError, match=r"source\.id: 2 ids are there more than once") as caught:
        plan_work(_spec(source), 602112)
    notes = caught.value.__notes__
    assert len(notes) == 2
    assert all("(code.query): " in note and f"{tmp_path}/1." in note for note in notes)
    assert all(f"{tmp_path}/2." in note for note in notes)
    plan_work(job(source), 602112)


@pytest.mark.fault("id.duplicate")
def test_images_of_two_folders_that_have_one_name_are_refused(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(png(1))
    source = {
        "uri": [str(tmp_path / "a"), str(tmp_path / "b")],
        "format": "images",
        "task": "code.query",
    }
    with pytest.raises(SourceError, match="1 ids are there more than once"):
        plan_work(_spec(source), 602112)
    plan_work(_spec(source | {"uri": str(tmp_path)}), 602112)


def test_one_document_may_be_embedded_for_two_tasks(tmp_path: Path) -> None:
    source = _parquet(tmp_path) | {"uri": f"{tmp_path}/1.parquet"}
    plan = plan_work(_spec([source, source | {"task": "code.passage"}]), 602112)
    assert plan.rows == 8
    with pytest.raises(SourceError, match="2 ids are there more than once"):
        plan_work(_spec([source, source]), 602112)


@pytest.mark.fault("id.duplicate")
def test_a_user_is_told_in_a_sentence_and_the_first_twenty_before_a_model_is_loaded(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [n // 2 for n in range(100)]
    pq.write_table(pa.table({"id": ids, "text": ["x"] * 100}), tmp_path / "a.parquet")
    source = {
        "uri": str(tmp_path / "a.parquet"),
        "format": "parquet",
        "id": "id",
        "text": "text",
        "task": "code.query",
    }
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    assert embed(spec) == 2
    told = capsys.readouterr().err.splitlines()
    assert "50 ids are there more than once for the same task" in told[0]
    assert "limits.duplicate_ids: keep" in told[0]
    assert len(told) == 21
    assert not (tmp_path / "out").exists()
    assert embed(spec, "--set", "limits.duplicate_ids=keep") == 0
    assert "100 rows embedded" in capsys.readouterr().out
