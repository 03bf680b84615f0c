"""Object storage: one winner per create, whole objects only, and listings that can be relied on."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import OutputError, SourceError
from pipeline.folder import Folder
from pipeline.storage import (
    StoredObject,
    base_directory,
    list_objects,
    local_copy,
    locate,
    open_object,
    read_object,
)

WRITERS = 16


def _stat(uri: str) -> StoredObject:
    (found,) = list_objects(uri)
    return found


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on local disk, and the same on S3."""
    if request.param == "file":
        return str(tmp_path / "store")
    bucket: str = request.getfixturevalue("bucket")
    return f"{bucket}/store"


def _names(uri: str, *suffixes: str) -> list[str]:
    """What is listed, as paths below the folder `store`."""
    return [o.uri.partition("/store/")[2] for o in list_objects(uri, suffixes)]


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that change after a few instructions, so that a gap of a few is met."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_of_many_writers_that_create_one_wins_and_its_bytes_stay(root: str) -> None:
    names = [f"log/{number}.json" for number in range(3 if "://" in root else 20)]
    start = threading.Barrier(WRITERS)

    def create(number: int) -> list[str]:
        folder, won = Folder(root), []
        for name in names:
            start.wait()
            with contextlib.suppress(FileExistsError):
                folder.create(name, b"%d" % number * 1000)
                won.append(name)
        return won

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(create, range(WRITERS)))
    assert sorted(name for names_won in won for name in names_won) == sorted(names)
    for number, names_won in enumerate(won):
        for name in names_won:
            assert Folder(root).get(name) == b"%d" % number * 1000


def test_create_refuses_what_put_made_and_leaves_it(root: str) -> None:
    folder = Folder(root)
    folder.put("a", b"first")
    with pytest.raises(FileExistsError):
        folder.create("a", b"second")
    assert folder.get("a") == b"first"


def test_put_replaces_and_get_of_nothing_says_so(root: str) -> None:
    folder = Folder(root)
    with pytest.raises(FileNotFoundError):
        folder.get("deep/er/a")
    folder.put("deep/er/a", b"one")
    folder.put("deep/er/a", b"two, longer")
    assert folder.get("deep/er/a") == b"two, longer"
    folder.put("deep/er/a", b"")
    assert folder.get("deep/er/a") == b""


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


def test_an_unknown_protocol_is_a_sentence() -> None:
    with pytest.raises(SourceError, match="'gopher://x/y': cannot open gopher:// locations"):
        locate("gopher://x/y")


def test_a_directory_lists_all_below_it_sorted_without_hidden_files(root: str) -> None:
    folder = Folder(root)
    for name in ("b.parquet", "a.PARQUET", "sub/c.parquet", "notes.txt", ".hidden.parquet"):
        folder.put(name, b"x")
    folder.put("sub/_SUCCESS", b"x")
    folder.put("_temporary/0/part.parquet", b"x")
    folder.put(".git/x.parquet", b"x")
    assert _names(root, ".parquet") == ["a.PARQUET", "b.parquet", "sub/c.parquet"]
    assert _names(f"{root}/", ".parquet") == ["a.PARQUET", "b.parquet", "sub/c.parquet"]
    assert _names(root) == ["a.PARQUET", "b.parquet", "notes.txt", "sub/c.parquet"]


def test_a_glob_lists_what_it_matches_whatever_the_suffix(root: str) -> None:
    folder = Folder(root)
    for name in ("x/1.parquet", "x/2.parquet", "y/1.parquet", "x/.1.parquet", "x/z/3.parquet"):
        folder.put(name, b"x")
    assert _names(f"{root}/x/*.parquet") == ["x/1.parquet", "x/2.parquet"]
    assert _names(f"{root}/*/1.parquet") == ["x/1.parquet", "y/1.parquet"]
    assert _names(f"{root}/x/[1]*", ".tar") == ["x/1.parquet"]
    everything = ["x/1.parquet", "x/2.parquet", "x/z/3.parquet", "y/1.parquet"]
    assert _names(f"{root}/**/*.parquet") == everything


def test_one_object_is_listed_whatever_its_suffix_and_nothing_where_there_is_none(
    root: str,
) -> None:
    Folder(root).put("data.bin", b"12345")
    (found,) = list_objects(f"{root}/data.bin", (".parquet",))
    assert found.size == 5
    assert found == _stat(f"{root}/data.bin")
    assert list_objects(f"{root}/nowhere", (".parquet",)) == []
    assert list_objects(f"{root}/*.nothing") == []


def test_the_etag_changes_with_the_content_and_not_without(root: str) -> None:
    folder = Folder(root)
    folder.put("a", b"one")
    before = _stat(f"{root}/a")
    assert _stat(f"{root}/a") == before
    assert list_objects(root) == [before]
    folder.put("a", b"two")
    assert _stat(f"{root}/a").etag != before.etag


@pytest.mark.s3
@pytest.mark.fault("store.listing")
def test_more_than_a_page_of_objects_is_listed_whole(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    folder = Folder(f"{bucket}/store")
    names = [f"{number:02}" for number in range(10)]
    for name in names:
        folder.put(f"log/{name}", b"")
    assert folder.names("log") == names
    assert len(list_objects(f"{bucket}/store")) == len(names)


def test_names_are_those_directly_below_sorted_without_hidden_ones(root: str) -> None:
    folder = Folder(root)
    for name in ("log/2", "log/1", "log/.tmp", "log/10", "other/3"):
        folder.put(name, b"x")
    assert folder.names("log") == ["1", "10", "2"]
    assert folder.names("nothing") == []


def test_a_range_of_an_object_is_read_and_an_open_one_can_seek(root: str) -> None:
    Folder(root).put("a", bytes(range(100)))
    assert read_object(f"{root}/a", 10, 20) == bytes(range(10, 20))
    assert read_object(f"{root}/a") == bytes(range(100))
    with open_object(_stat(f"{root}/a")) as stream:
        stream.seek(90)
        assert stream.read() == bytes(range(90, 100))


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
def test_a_folder_of_objects_is_copied_once_and_again_when_it_changes(
    bucket: str, tmp_path: Path
) -> None:
    folder = Folder(f"{bucket}/model")
    folder.put("config.json", b"{}")
    folder.put("adapters/a.bin", b"a")
    copy = local_copy(folder.uri, tmp_path / "cache")
    assert (copy / "adapters/a.bin").read_bytes() == b"a"
    (copy / "mark").touch()
    assert (local_copy(folder.uri, tmp_path / "cache") / "mark").exists()
    folder.put("adapters/a.bin", b"b")
    other = local_copy(folder.uri, tmp_path / "cache")
    assert (other / "adapters/a.bin").read_bytes() == b"b"
    kept = {name for name in os.listdir(tmp_path / "cache") if not name.endswith(".lock")}
    assert kept == {copy.name, other.name}
    with pytest.raises(SourceError, match="no object below"):
        local_copy(f"{bucket}/absent", tmp_path / "cache")


def test_workers_that_start_together_fetch_one_copy(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Folder(f"{bucket}/checkpoint").put("weights", b"heavy")
    made: list[str] = []
    rename = os.rename

    def counted(copy: str, target: Path) -> None:
        made.append(copy)
        # long enough for all others to have come
        time.sleep(0.3)
        rename(copy, target)

    monkeypatch.setattr(os, "rename", counted)
    with ThreadPoolExecutor(6) as workers:
        found = workers.map(
            lambda _: local_copy(f"{bucket}/checkpoint", tmp_path / "cache"), range(6)
        )
        copies = set(found)
    assert len(made) == 1
    assert [(copy / "weights").read_bytes() for copy in copies] == [b"heavy"]


def test_a_local_folder_is_used_where_it_is(tmp_path: Path) -> None:
    assert local_copy(str(tmp_path), tmp_path / "cache") == tmp_path
    assert local_copy(f"file://{tmp_path}", tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()
