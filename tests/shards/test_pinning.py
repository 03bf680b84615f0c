"""What is read is what was listed: an object that is replaced meanwhile is refused, never mixed."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceChanged
from pipeline.folder import Folder
from pipeline.spec import JobSpec
from pipeline.stages.plan import Plan, plan_work
from pipeline.stages.source import read_units
from tests.shards import groups_of, job

_ROWS = 6


def _parquet(text: str) -> bytes:
    buffer = io.BytesIO()
    columns = {"id": pa.array(range(_ROWS)), "text": [f"{text} {row}" for row in range(_ROWS)]}
    pq.write_table(pa.table(columns), buffer, compression="none")
    return buffer.getvalue()


def _jsonl(text: str) -> bytes:
    rows = ({"id": str(row), "text": f"{text} {row}"} for row in range(_ROWS))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _tar(text: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for row in range(_ROWS):
            content = f"{text} {row}".encode()
            member = tarfile.TarInfo(f"{row}.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _png(text: str) -> bytes:
    return text.encode()


_MAPPED = {"id": "id", "text": "text", "task": "text-matching"}
_FORMATS: dict[str, tuple[str, Callable[[str], bytes], dict[str, Any]]] = {
    "parquet": ("a.parquet", _parquet, _MAPPED),
    "jsonl": ("a.jsonl", _jsonl, _MAPPED),
    "webdataset": ("a.tar", _tar, {"task": "text-matching"}),
    "images": ("a.png", _png, {"task": "text-matching"}),
}


def _planned(folder: Folder, kind: str) -> tuple[JobSpec, Plan]:
    """The plan of a source that holds the old object."""
    name, make, mapped = _FORMATS[kind]
    folder.put(name, make("old"))
    spec = job({"uri": folder.uri, "format": kind} | mapped, unit_rows=2)
    return spec, plan_work(spec, 602112)


@pytest.fixture(params=["file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A source on the disk, and one in an object store."""
    root = str(tmp_path) if request.param == "file" else request.getfixturevalue("bucket")
    return Folder(f"{root}/source")


@pytest.mark.s3
@pytest.mark.parametrize("kind", _FORMATS)
@pytest.mark.fault("file.changed")
def test_an_object_replaced_before_it_is_read_is_refused_and_the_next_plan_reads_it(
    folder: Folder, kind: str
) -> None:
    name, make, _ = _FORMATS[kind]
    spec, plan = _planned(folder, kind)
    # of the same size: only what the store says of it tells
    folder.put(name, make("new"))
    with pytest.raises(SourceChanged, match=f"{name} was changed while the run read it; run the"):
        for group in groups_of(plan):
            list(read_units(spec.sources[0], group, plan.id_type, []))
    again = plan_work(spec, 602112)
    column = "image" if kind == "images" else "text"
    found = [
        bytes(content)
        for group in groups_of(again)
        for _, table in read_units(spec.sources[0], group, again.id_type, [])
        for content in table[column].to_pylist()
    ]
    assert all(content.startswith(b"new") for content in found)


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["parquet", "jsonl", "webdataset"])
@pytest.mark.fault("file.changed")
def test_an_object_replaced_between_two_units_gives_no_second_one(
    folder: Folder, kind: str
) -> None:
    name, make, _ = _FORMATS[kind]
    spec, plan = _planned(folder, kind)
    replaced = False
    with pytest.raises(SourceChanged):
        for group in groups_of(plan):
            for _, table in read_units(spec.sources[0], group, plan.id_type, []):
                assert not replaced
                assert all(bytes(text).startswith(b"old") for text in table["text"].to_pylist())
                folder.put(name, make("new"))
                replaced = True


@pytest.mark.s3
@pytest.mark.fault("file.gone")
def test_an_object_that_is_gone_is_said_to_be_gone(folder: Folder) -> None:
    spec, plan = _planned(folder, "parquet")
    folder.delete("a.parquet")
    with pytest.raises(SourceChanged, match=r"a\.parquet was removed while the run read it"):
        list(read_units(spec.sources[0], plan.units, plan.id_type, []))
