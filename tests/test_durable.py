"""Local files that appear whole, whatever the file system offers."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from pipeline import durable

_BLOCK = durable._BLOCK
_SIZES = [0, 1, _BLOCK - 1, _BLOCK, _BLOCK + 1, 3 * _BLOCK, 3 * _BLOCK + 4097]


@pytest.mark.parametrize("size", _SIZES)
def test_a_file_holds_every_byte_of_any_size(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    durable.put(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_without_direct_writes_gets_cached_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(file: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number))
        return 0

    monkeypatch.setattr(durable.fcntl, "fcntl", refuse)
    data = os.urandom(2 * _BLOCK + 5)
    durable.put(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


def test_a_file_system_that_refuses_the_first_direct_write_gets_cached_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, block: object, at: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(durable.os, "pwrite", refuse)
    data = os.urandom(2 * _BLOCK + 5)
    durable.put(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


def test_a_direct_write_cut_short_is_finished_by_a_cached_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.pwrite

    def short(file: int, block: memoryview, at: int) -> int:
        return whole(file, memoryview(block)[: _BLOCK // 2], at)

    monkeypatch.setattr(durable.os, "pwrite", short)
    data = os.urandom(2 * _BLOCK + 5)
    durable.put(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.fault("store.disk_full")
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, block: object, at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        durable.put(tmp_path / "file", os.urandom(_BLOCK))
    assert os.listdir(tmp_path) == []


def test_of_two_creators_the_first_wins(tmp_path: Path) -> None:
    durable.create(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        durable.create(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("write", ["put", "create"])
@pytest.mark.parametrize("times", [1, 99])
def test_a_writer_whose_temporary_file_is_deleted_writes_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, times: int
) -> None:
    sync, deleted = os.fsync, []

    def swept(file: int) -> None:
        sync(file)
        for name in filter(durable.is_temporary, os.listdir(tmp_path)):
            if len(deleted) < times:
                deleted.append(name)
                (tmp_path / name).unlink()

    monkeypatch.setattr(durable.os, "fsync", swept)
    if times == 1:
        getattr(durable, write)(tmp_path / "file", b"whole")
        assert (tmp_path / "file").read_bytes() == b"whole"
    else:
        with pytest.raises(FileNotFoundError):
            getattr(durable, write)(tmp_path / "file", b"whole")
    assert os.listdir(tmp_path) == ["file"][: times == 1]
