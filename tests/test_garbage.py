"""Garbage is what no version that is kept needs; what is condemned once stays so."""

import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import open_dataset
from pipeline.errors import CommitConflict, OutputError
from pipeline.folder import Folder
from pipeline.garbage import collect, find_garbage
from pipeline.log import list_versions, newest_entry, read_condemned, read_entry
from pipeline.manifest import read_manifest
from pipeline.published import tag, untag
from tests.simulation.dataset import MADE_BY, OTHERWISE, collect_all, driver, embed, plan


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
    return set(read_manifest(folder, read_entry(folder, version).manifest).sizes)


def _stored(folder: Folder) -> set[str]:
    root = Path(folder.uri)
    return {str(p.relative_to(root)) for k in ("data", "quarantine") for p in root.glob(f"{k}/*/*")}


def test_a_version_that_is_kept_stays_whole(folder: Folder) -> None:
    one, two, three = (_paths(folder, version) for version in (1, 2, 3))
    collected = collect_all(tagged(folder, 1))
    assert collected.expired == (2,)
    assert {p for p in collected.files if not p.startswith("manifests/")} == two - one
    assert _stored(folder) == one | three
    assert open_dataset(folder.uri, 1).to_table().num_rows == 4


def tagged(folder: Folder, version: int) -> Folder:
    """The same, with a name for a version."""
    tag(folder, "kept", version)
    return folder


def test_so_many_of_the_newest_snapshots_are_kept(folder: Folder) -> None:
    for keep, kept in ((0, (3,)), (1, (3,)), (2, (2, 3)), (3, (1, 2, 3)), (9, (1, 2, 3))):
        assert find_garbage(folder, keep).kept == kept
    assert find_garbage(folder).files == {}, "a week of nights by default"


def test_more_snapshots_may_be_kept_than_an_earlier_collection_left(folder: Folder) -> None:
    collect_all(folder)
    _drive(folder, 4)
    assert find_garbage(folder, keep=3).kept == (3, 5)


def test_what_was_condemned_once_is_condemned_for_ever(folder: Folder) -> None:
    first = set(collect_all(folder).files)
    _drive(folder, 4)
    second = set(collect_all(folder).files)
    assert first
    assert second
    assert read_condemned(folder, newest_entry(folder)) == first | second
    assert _stored(folder) == _paths(folder, 5)


def test_a_collection_that_finds_nothing_is_no_version(folder: Folder, tmp_path: Path) -> None:
    collect_all(folder)
    versions = list_versions(folder)
    assert collect_all(folder).files == {}
    assert list_versions(folder) == versions
    with pytest.raises(OutputError, match="holds no committed dataset"):
        find_garbage(Folder(str(tmp_path / "nowhere")))


def test_looking_writes_and_deletes_nothing(folder: Folder) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(folder.uri).rglob("*")}
    assert find_garbage(folder, keep=0, abandoned=True).files
    assert {p: p.stat().st_mtime_ns for p in Path(folder.uri).rglob("*")} == before


def test_a_collection_that_was_beaten_deletes_nothing(folder: Folder) -> None:
    garbage = find_garbage(folder, keep=0)
    tag(folder, "kept", 1)
    with pytest.raises(CommitConflict, match="version 4"):
        collect(folder, garbage)
    assert _read_ids(folder, 1) == [0, 1, 3, 4]


def test_a_collection_that_was_cut_off_is_finished_by_the_next(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(OSError, match="cut off"):
        patch.setattr(Folder, "delete", _cut_off)
        collect_all(folder)
    versions = list_versions(folder)
    collect_all(folder)
    assert _stored(folder) == _paths(folder, 3)
    assert list_versions(folder) == versions, "it was condemned before"


def _cut_off(folder: Folder, name: str) -> None:
    raise OSError("cut off")


def test_unfinished_work_is_left_for_the_run_that_goes_on_with_it(folder: Folder) -> None:
    _age(folder)
    receipts = embed(folder, plan([4]), {})
    left = {file.path for receipt in receipts for file in receipt.files}
    garbage = find_garbage(folder, keep=9)
    assert garbage.files == {}
    assert garbage.unfinished == {MADE_BY[:8]: sum(f.size for f in receipts[0].files)}
    assert find_garbage(folder, keep=9, abandoned=True).files.keys() == left


def test_work_that_a_later_snapshot_of_its_kind_did_without_is_garbage(folder: Folder) -> None:
    _age(folder)
    (receipt,) = embed(folder, plan([4]), {})
    _age(folder)
    _drive(folder, 0, 1)
    garbage = find_garbage(folder, keep=9)
    assert garbage.files.keys() == {file.path for file in receipt.files}
    assert garbage.unfinished == {}


def test_a_generation_of_which_there_is_no_snapshot_yet_is_left_whatever_its_age(
    folder: Folder,
) -> None:
    embed(folder, plan([0, 1]), {}, made_by=OTHERWISE)
    _age(folder)
    _drive(folder, 5)
    assert find_garbage(folder, keep=9).unfinished.keys() == {OTHERWISE[:8]}
    assert len(find_garbage(folder, keep=9, abandoned=True).files) == 4


def test_a_state_that_comes_again_has_another_manifest_than_the_condemned_one(
    folder: Folder,
) -> None:
    _drive(folder, 0, 1)
    _drive(folder, 0, 1, 2)
    condemned = read_entry(folder, 4).manifest
    collect_all(folder)
    assert condemned in read_condemned(folder, newest_entry(folder))
    # its files are those of a snapshot that was kept, so they are not embedded again
    _drive(folder, 0, 1)
    newest = newest_entry(folder)
    assert newest is not None
    assert newest.manifest not in read_condemned(folder, newest)
    assert _paths(folder, newest.version) <= _paths(folder, 5)
    assert _read_ids(folder) == [0, 1, 3, 4]


def test_lists_of_condemned_files_do_not_pile_up(folder: Folder) -> None:
    for shard in range(4, 10):
        _drive(folder, shard)
        collect_all(folder)
    # that of the newest entry, and the one before, which a driver may be about to read
    assert len(list(Path(folder.uri, "condemned").iterdir())) == 2
    assert len(list(Path(folder.uri, "manifests").iterdir())) == 1


def test_a_list_that_lost_its_race_is_collected_once_the_newest_has_outgrown_it(
    folder: Folder,
) -> None:
    garbage = find_garbage(folder, keep=0)
    tag(folder, "kept", 1)
    with pytest.raises(CommitConflict):
        collect(folder, garbage)
    (lost,) = _lists(folder)
    # what somebody could still name: the same list may be put again, and win
    assert find_garbage(folder, keep=9).superseded == ()
    untag(folder, "kept")
    collect_all(folder)
    named = read_condemned(folder, newest_entry(folder))
    assert [lost] == _lists(folder), "it was put again, and is named"
    tag(folder, "kept", 3)
    _drive(folder, 4)
    _drive(folder, 5)
    # another loser, shorter than the list that wins
    short = collect_as_loser(folder)
    _drive(folder, 6)
    collect_all(folder)
    assert read_condemned(folder, newest_entry(folder)) > named
    assert {lost, short} < set(_lists(folder))
    collect_all(folder)
    newest = newest_entry(folder)
    assert newest is not None
    assert _lists(folder) == [newest.condemned]


def collect_as_loser(folder: Folder) -> str:
    """Put a list that no entry names; its path."""
    before = set(_lists(folder))
    garbage = find_garbage(folder, keep=0)
    tag(folder, "moved", 3)
    with pytest.raises(CommitConflict):
        collect(folder, garbage)
    (lost,) = set(_lists(folder)) - before
    return lost


def _lists(folder: Folder) -> list[str]:
    return [f"condemned/{name}" for name in folder.names("condemned")]


def test_what_was_learned_of_a_shard_goes_with_the_last_snapshot_of_it(folder: Folder) -> None:
    states = {
        shard.state: int(shard.etag)
        for version in (1, 2, 3)
        for shard in read_manifest(folder, read_entry(folder, version).manifest).shards
    }
    for state in (*states, "of a run that was cut off"):
        folder.put(f"inspections/{state}-how", b"learned")
    assert find_garbage(folder, keep=1).forgotten == (), "younger than any snapshot"
    for path in Path(folder.uri, "inspections").iterdir():
        os.utime(path, (0, 0))
    folder.put("inspections/of a run in progress-how", b"learned")
    forgotten = find_garbage(folder, keep=2).forgotten
    gone = {state for state, shard in states.items() if shard == 0}
    assert set(forgotten) == {f"inspections/{s}-how" for s in (*gone, "of a run that was cut off")}
    collect_all(folder)
    left = {name.removesuffix("-how") for name in folder.names("inspections")}
    assert left == {"of a run in progress", *(s for s, shard in states.items() if shard == 3)}


def test_what_is_half_written_is_collected_wherever_it_lies(folder: Folder) -> None:
    folder.put("inspections/a", b"learned")
    collect_all(folder)
    root = Path(folder.uri)
    places = [root, *(path for path in root.rglob("*") if path.is_dir() and any(path.glob("*.*")))]
    kinds = {place.relative_to(root).parts[:1] for place in places}
    assert {("log",), ("work",), ("condemned",), ("data",), ()} <= kinds
    for place in (*places, root / "inspections"):
        (place / f".{uuid.uuid4().hex}.tmp").write_bytes(b"half")
    versions = list_versions(folder)
    assert all((root / path).exists() for path in find_garbage(folder).half_written)
    collect_all(folder)
    assert list(root.rglob(".*")) == []
    assert list_versions(folder) == versions


def _read_ids(folder: Folder, version: int | None = None) -> list[int]:
    return sorted(open_dataset(folder.uri, version).to_table()["id"].to_pylist())


def _age(folder: Folder) -> None:
    """Put everything that is there ten seconds into the past: some file systems count in those."""
    for path in Path(folder.uri).rglob("*"):
        if path.is_file():
            found = path.stat()
            os.utime(path, (found.st_atime - 10, found.st_mtime - 10))
