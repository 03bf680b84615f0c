"""Garbage is what no version that is kept needs; what is condemned once stays so."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import open_dataset
from pipeline.folder import Folder
from pipeline.garbage import collect, find_garbage
from pipeline.log import list_versions, newest_entry, read_condemned, read_entry, read_manifest
from tests.simulation.dataset import driver


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Three versions, each of another source."""
    folder = Folder(str(tmp_path / "dataset"))
    for shards in ((0, 1), (1, 2), (3,)):
        _drive(folder, *shards)
    return folder


def _drive(folder: Folder, *shards: int) -> None:
    program: Any = driver(shards)
    program(folder)


def _paths(folder: Folder, version: int) -> set[str]:
    return set(read_manifest(folder, read_entry(folder, version).manifest)["path"].to_pylist())


def _stored(folder: Folder) -> set[str]:
    root = Path(folder.uri)
    return {str(p.relative_to(root)) for k in ("data", "quarantine") for p in root.glob(f"{k}/*/*")}


def test_a_version_that_is_kept_stays_whole(folder: Folder) -> None:
    one, two, three = (_paths(folder, version) for version in (1, 2, 3))
    assert set(collect(folder, keep=(1,))) == two - one
    assert _stored(folder) == one | three
    assert open_dataset(folder.uri, 1).to_table().num_rows == 4


def test_a_version_that_is_not_there_is_no_reason_to_keep_or_to_fail(folder: Folder) -> None:
    newest = newest_entry(folder)
    assert newest is not None
    found = find_garbage(folder, newest, (99,))
    assert set(found) == _stored(folder) - _paths(folder, 3)
    assert {path.partition("/")[0] for path in found} == {"data", "quarantine"}


def test_what_was_condemned_once_is_condemned_for_ever(folder: Folder) -> None:
    first = set(collect(folder, keep=()))
    _drive(folder, 4)
    second = set(collect(folder, keep=()))
    assert first
    assert second
    assert read_condemned(folder, newest_entry(folder)) == first | second
    assert _stored(folder) == _paths(folder, 5)


def test_a_collection_that_finds_nothing_is_no_version(folder: Folder, tmp_path: Path) -> None:
    collect(folder, keep=())
    versions = list_versions(folder)
    assert collect(folder, keep=()) == []
    assert list_versions(folder) == versions
    nowhere = Folder(str(tmp_path / "nowhere"))
    assert collect(nowhere, keep=()) == []
    assert list_versions(nowhere) == []
