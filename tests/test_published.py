"""Which snapshot readers get, and which versions have a name: each change an entry of the log."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import published
from pipeline.commit import amend
from pipeline.dataset import open_dataset
from pipeline.errors import CommitConflict, OutputError
from pipeline.folder import Folder
from pipeline.garbage import collect, find_garbage
from pipeline.log import Kind, LogEntry, list_versions, newest_entry, read_log
from pipeline.published import publish, roll_back, tag, untag
from tests.simulation.dataset import collect_all, driver


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Three versions, each of another source; the last is published."""
    folder = Folder(str(tmp_path / "dataset"))
    for shards in ((0, 1), (1, 2), (3,)):
        driver(shards)(folder)
    return folder


def _read(folder: Folder, version: int | str | None = None) -> tuple[int, list[int]]:
    dataset = open_dataset(folder.uri, version)
    return dataset.version, sorted(dataset.to_table()["id"].to_pylist())


def test_a_rollback_gives_readers_the_earlier_snapshot_and_changes_no_other(folder: Folder) -> None:
    one, three = _read(folder, 1), _read(folder, 3)
    entry = roll_back(folder, 1)
    assert (entry.version, entry.kind, entry.published, entry.snapshot) == (4, "rollback", 1, 3)
    assert _read(folder) == one
    assert _read(folder, 3) == three
    assert _read(folder, 4) == one, "a version that made no snapshot is what readers got then"
    assert publish(folder, 3).kind is Kind.PUBLISH
    assert _read(folder) == three
    assert [entry.published for entry in read_log(folder)] == [1, 2, 3, 1, 3]


def test_what_readers_get_already_is_no_new_version(folder: Folder) -> None:
    for change in (publish, roll_back):
        assert change(folder, 3) == newest_entry(folder)
    assert list_versions(folder) == [1, 2, 3]


def test_a_run_after_a_rollback_does_not_bring_back_what_was_rolled_back(folder: Folder) -> None:
    roll_back(folder, 1)
    outcome = driver((3,))(folder)
    assert (outcome.entry.snapshot, outcome.entry.published) == (3, 1)
    assert list_versions(folder)[-1] == 4
    driver((3, 4))(folder)
    assert open_dataset(folder.uri).version == 5, "a source that has changed is published"


@pytest.mark.parametrize(
    ("change", "version", "expected"),
    [
        (publish, 2, r"version 2 is older than the published one, 3; `nightjar rollback"),
        (publish, 9, r"has no version 9; it has 1 to 3"),
        (publish, "golden", r"has no tag 'golden'; its tags: none"),
        (roll_back, "0", r"has no version 0"),
        (roll_back, "-1", r"has no tag '-1'"),
    ],
)
def test_a_version_that_will_not_do_is_refused_with_the_way_out(
    folder: Folder,
    change: Callable[[Folder, int | str], LogEntry],
    version: int | str,
    expected: str,
) -> None:
    with pytest.raises(OutputError, match=expected):
        change(folder, version)
    assert list_versions(folder) == [1, 2, 3]


def test_a_rollback_that_would_go_forward_is_refused(folder: Folder) -> None:
    roll_back(folder, 1)
    with pytest.raises(OutputError, match=r"version 2 is newer than the published one, 1; .*publ"):
        roll_back(folder, 2)
    with pytest.raises(OutputError, match=r"version 4 made no snapshot: it is a rollback, after"):
        publish(folder, 4)


def test_a_snapshot_with_a_file_gone_is_not_published(folder: Folder) -> None:
    file = open_dataset(folder.uri, 2).files[0]
    folder.delete(file.path)
    with pytest.raises(OutputError, match=f"{file.path}, a file of version 2, is gone"):
        roll_back(folder, 2)


def test_a_tag_names_a_version_wherever_one_is_asked_for(folder: Folder) -> None:
    assert tag(folder, "golden", 1).tags == {"golden": 1}
    assert _read(folder, "golden") == _read(folder, 1)
    roll_back(folder, "golden")
    assert _read(folder) == _read(folder, 1)
    assert tag(folder, "today").tags == {"golden": 1, "today": 1}, "the published one by default"
    assert tag(folder, "golden", 2).tags == {"golden": 2, "today": 1}, "a tag may move"
    assert untag(folder, "golden").tags == {"today": 1}
    with pytest.raises(OutputError, match=r"no tag 'golden'; its tags: today"):
        untag(folder, "golden")


@pytest.mark.parametrize("name", ["", "7", "Golden", "a b", "a/b", "-x", "x" * 64])
def test_a_name_that_will_not_do_is_refused(folder: Folder, name: str) -> None:
    with pytest.raises(OutputError, match="tag: "):
        tag(folder, name)


def test_there_are_not_more_tags_than_an_entry_may_repeat(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "_MOST_TAGS", 2)
    for name in ("a", "b", "a"):
        tag(folder, name)
    with pytest.raises(OutputError, match="has 2 tags"):
        tag(folder, "c")


def test_a_snapshot_that_was_collected_is_neither_read_nor_published(folder: Folder) -> None:
    collect_all(folder)
    for refused in (lambda: open_dataset(folder.uri, 1), lambda: roll_back(folder, 1)):
        with pytest.raises(OutputError, match="version 1 was collected by `nightjar gc`"):
            refused()
    assert _read(folder)[0] == 3


def test_what_is_published_or_has_a_name_is_not_collected(folder: Folder) -> None:
    tag(folder, "golden", 2)
    roll_back(folder, 1)
    assert find_garbage(folder, keep=0, abandoned=True).kept == (1, 2, 3)
    collect_all(folder)
    assert [_read(folder, version)[0] for version in (None, 1, 2, 3)] == [1, 1, 2, 3]


def test_a_change_that_was_decided_by_an_old_state_is_decided_anew(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[LogEntry] = []

    def beaten(folder: Folder, changed: LogEntry) -> LogEntry:
        calls.append(changed)
        if len(calls) == 1:
            # in the moment between the decision and the commit
            collect(folder, find_garbage(folder, keep=0))
        return amend(folder, changed)

    monkeypatch.setattr(published, "amend", beaten)
    with pytest.raises(OutputError, match="version 1 was collected"):
        roll_back(folder, 1)
    assert _read(folder)[0] == 3


def test_a_dataset_that_others_keep_committing_to_is_given_up(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beaten(folder: Folder, changed: LogEntry) -> LogEntry:
        raise CommitConflict("faster")

    monkeypatch.setattr(published, "amend", beaten)
    with pytest.raises(CommitConflict, match="others committed 10 times meanwhile"):
        roll_back(folder, 1)


def test_nothing_is_published_where_nothing_was_committed(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no committed dataset"):
        publish(Folder(str(tmp_path / "nowhere")), 1)
