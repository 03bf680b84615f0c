"""Object storage: one winner per create, whole objects only, and listings that can be relied on."""

import errno
import os
import threading
from pathlib import Path

import boto3
import pytest

from pipeline.errors import OutputError, SourceError
from pipeline.folder import Folder
from pipeline.storage import (
    absolute,
    base_directory,
    list_objects,
    locate,
)

WRITERS = 16


@pytest.mark.fault("store.partial_upload")
def test_a_reader_sees_the_old_or_the_new_object_and_never_a_part(tmp_path: Path) -> None:
    folder, size = Folder(str(tmp_path)), 1 << 18
    folder.put("a", b"0" * size)
    stop = threading.Event()

    def write() -> None:
        for number in range(20):
            folder.put("a", b"%d" % (number % 10) * size)
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not stop.is_set():
        data = folder.get("a")
        seen.append((len(data), len(set(data))))
    writer.join()
    assert set(seen) == {(size, 1)}


@pytest.mark.fault("store.writer_raises")
def test_nothing_temporary_is_left_after_success_or_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path))
    folder.put("d/a", b"1")
    folder.create("d/b", b"1")
    with pytest.raises(FileExistsError):
        folder.create("d/b", b"2")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("pipeline.storage.os.replace", fail)
    with pytest.raises(OSError, match="no space left"):
        folder.put("d/c", b"3")
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["a", "b"]


@pytest.mark.fault("store.no_condition")
def test_a_store_without_put_if_absent_is_refused_for_create() -> None:
    folder = Folder("memory://nightjar-test")
    with pytest.raises(OutputError, match="memory:// has no put-if-absent"):
        folder.create("a", b"")


@pytest.mark.parametrize("name", ["", "deep/er"])
@pytest.mark.fault("store.no_condition")
def test_a_file_system_without_hard_links_is_refused_at_the_start_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = Folder(str(tmp_path / name))
    folder.demand_create()
    assert list(tmp_path.iterdir()) == []

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("pipeline.durable.os.link", refuse)
    with pytest.raises(OutputError, match="cannot be written to, or its file system has no hard"):
        folder.demand_create()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_overwrites_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.durable.os.link", os.replace)
    with pytest.raises(OutputError, match="overwrites what is there"):
        Folder(str(tmp_path)).demand_create()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_protocol_is_a_sentence() -> None:
    with pytest.raises(SourceError, match="'gopher://x/y': cannot open gopher:// locations"):
        locate("gopher://x/y")


def test_a_local_path_is_spelled_for_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute("x/*.parquet") == f"{tmp_path}/x/*.parquet"
    assert absolute("~/x") == "/home/somebody/x"
    assert absolute(f"file://{tmp_path}/x") == f"{tmp_path}/x"
    assert absolute("s3://lake/x") == "s3://lake/x"
    assert locate("s3://lake/~/x").path == "lake/~/x"


@pytest.mark.parametrize(
    ("pattern", "base"),
    [("*.parquet", ""), ("x/*/y.tar", "/x"), ("x/y.tar", "/x"), ("x", "/x"), ("x/[ab]*", "/x")],
)
def test_relative_paths_begin_at_the_directory_before_the_first_glob(
    tmp_path: Path, pattern: str, base: str
) -> None:
    Folder(str(tmp_path)).put("x/y.tar", b"")
    assert locate(base_directory(f"{tmp_path}/{pattern}")).path == f"{tmp_path}{base}"


@pytest.mark.s3
def test_what_somebody_else_wrote_or_deleted_is_seen_at_once(bucket: str, s3_endpoint: str) -> None:
    somebody = boto3.client("s3", endpoint_url=s3_endpoint)
    where = {"Bucket": bucket.removeprefix("s3://"), "Key": "log/2"}
    folder = Folder(f"{bucket}/log")
    folder.put("1", b"")

    def seen() -> list[str]:
        names = folder.names("")
        assert names == [o.uri.rpartition("/")[2] for o in list_objects(folder.uri)]
        return names

    assert seen() == ["1"]
    somebody.put_object(**where, Body=b"")
    assert seen() == ["1", "2"]
    somebody.delete_object(**where)
    assert seen() == ["1"]
