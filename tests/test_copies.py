"""Folders of objects as local directories: made once, whole, and nothing beside them."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from pipeline import copies
from pipeline.copies import local_copy
from pipeline.errors import SourceChanged, SourceError
from pipeline.folder import Folder
from pipeline.model.checkpoint import open_checkpoint, open_settings
from pipeline.storage import StoredObject, list_objects, locate, read_object


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


@pytest.mark.s3
def test_of_a_folder_only_the_objects_that_are_wanted_are_copied(
    bucket: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.put(str(tiny_checkpoint), f"{bucket}/tiny", recursive=True)
    copy = local_copy(f"{bucket}/tiny", tmp_path / "cache", only=".json")
    assert {path.suffix for path in copy.rglob("*") if path.is_file()} == {".json"}
    there = open_settings(copy)
    whole = open_checkpoint(tiny_checkpoint)
    assert (there.config, there.pixel_bounds) == (whole.config, whole.pixel_bounds)
    # the whole folder is another copy
    assert open_checkpoint(local_copy(f"{bucket}/tiny", tmp_path / "cache")).hashes == whole.hashes
    with pytest.raises(SourceError, match=r"no object below '.*' that ends in \.bin"):
        local_copy(f"{bucket}/tiny", tmp_path / "cache", only=".bin")


@pytest.mark.s3
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
    uri, cache, waited = f"{bucket}/checkpoint", tmp_path / "cache", list[float]()
    with ThreadPoolExecutor(6) as workers:
        found = workers.map(lambda _: local_copy(uri, cache, waited.append), range(6))
        copies = set(found)
    assert len(made) == 1
    # those that waited for it are told how long, and who comes later is not
    assert max(waited) >= 0.3
    told = len(waited)
    local_copy(uri, cache, waited.append)
    assert len(waited) == told
    assert [(copy / "weights").read_bytes() for copy in copies] == [b"heavy"]


def test_a_local_folder_is_used_where_it_is(tmp_path: Path) -> None:
    assert local_copy(str(tmp_path), tmp_path / "cache") == tmp_path
    assert local_copy(f"file://{tmp_path}", tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def memory() -> object:
    """A store whose keys may be anything."""
    store = fsspec.filesystem("memory")
    yield store.store
    store.store.clear()


def _put(name: str, data: bytes) -> None:
    fsspec.filesystem("memory").pipe_file(name, data)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 35])
def test_a_copy_is_fetched_in_ranges_and_is_whole(
    memory: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    content = bytes(range(size))
    _put("/model/deep/weights", content)
    asked: list[int] = []

    def counted(uri: str, start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return read_object(uri, start, stop)

    monkeypatch.setattr(copies, "_RANGE", 10)
    monkeypatch.setattr(copies, "read_object", counted)
    copy = local_copy("memory://model", tmp_path / "cache")
    assert (copy / "deep/weights").read_bytes() == content
    assert (sum(asked), max(asked, default=0)) == (size, min(size, 10))


@pytest.mark.fault("security.path")
@pytest.mark.parametrize("key", ["/model/../../../mark", "/model/a/../../../mark", "/model//mark"])
def test_no_key_leads_out_of_the_copy(memory: object, tmp_path: Path, key: str) -> None:
    _put("/model/config.json", b"{}")
    memory[key] = fsspec.implementations.memory.MemoryFile(None, key, b"x")  # type: ignore[index]
    cache = tmp_path / "deep/er/cache"
    try:
        local_copy("memory://model", cache)
    except SourceError as error:
        assert "cannot be copied to a file of its name" in str(error)
    assert list(tmp_path.rglob("mark")) == []


@pytest.mark.fault("security.path")
@pytest.mark.parametrize("key", ["model/../x", "model//etc/x", "model/a/..", "other/x", "model"])
def test_a_name_that_is_not_below_the_folder_is_refused(memory: object, key: str) -> None:
    stored = StoredObject(uri=f"memory://{key}", size=1, etag="")
    with pytest.raises(SourceError, match="cannot be copied to a file of its name"):
        copies._name_below(locate("memory://model"), stored)


def test_an_object_that_is_replaced_meanwhile_or_comes_short_is_not_kept(
    memory: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put("/model/weights", b"old" * 10)
    listed = list_objects("memory://model")
    monkeypatch.setattr(copies, "list_objects", lambda _: listed)
    with monkeypatch.context() as patch:
        patch.setattr(copies, "read_object", lambda *_: b"o")
        with pytest.raises(SourceError, match="1 of its 30 bytes came"):
            local_copy("memory://model", tmp_path / "cache")
    _put("/model/weights", b"newer" * 10)
    with pytest.raises(SourceChanged, match="was changed"):
        local_copy("memory://model", tmp_path / "cache")
    assert [name for name in os.listdir(tmp_path / "cache") if not name.endswith(".lock")] == []
