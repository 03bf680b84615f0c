"""`versions`, `publish`, `rollback`, `tag` and `gc`, as they are typed."""

import re
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline.folder import Folder
from tests.simulation.dataset import driver

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Three versions, each of another source."""
    folder = Folder(str(tmp_path / "dataset"))
    for shards in ((0, 1), (1, 2), (3,)):
        driver(shards)(folder)
    return folder.uri


def test_versions_tells_what_was_committed_and_what_readers_got(
    dataset: str, capsys: Captured
) -> None:
    for command in (
        ["rollback", dataset, "1"],
        ["tag", dataset, "golden", "2"],
        ["publish", dataset, "golden"],
        ["tag", dataset, "golden", "--delete"],
        ["gc", dataset, "--keep", "0", "--delete"],
    ):
        assert main(command) == 0
    capsys.readouterr()
    assert main(["versions", dataset]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["version", "committed", "readers", "get", "what"]
    told = [re.fullmatch(r" +(\d+)  (\S+) +(\d+)  (.*)", line) for line in lines]
    assert [(m[1], m[3], m[4]) for m in told if m] == [
        ("8", "2", "gc: files were condemned and deleted"),
        ("7", "2", "tag: golden is no more"),
        ("6", "2", "publish: version 2 instead of 1"),
        ("5", "1", "tag: golden is 2"),
        ("4", "1", "rollback: version 1 instead of 3"),
        ("3", "3", "snapshot: 2 rows, 1 quarantined (discarded)"),
        ("2", "2", "snapshot: 4 rows, 2 quarantined (published)"),
        ("1", "1", "snapshot: 4 rows, 2 quarantined (collected)"),
    ]
    assert main(["versions", dataset, "--last", "2"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 4
    assert out.endswith("6 older; --last 8 lists all\n")


def test_gc_shows_what_it_would_do_and_does_it_when_told(dataset: str, capsys: Captured) -> None:
    before = sorted(Path(dataset).rglob("*"))
    assert main(["gc", dataset, "--keep", "1"]) == 0
    out = capsys.readouterr().out
    assert re.match(r"would delete 8 files, \d\.\d{3} MB\n", out)
    assert "  no longer readable: versions 1, 2\n  kept: version 3\n" in out
    assert out.endswith("nothing was deleted; --delete does it\n")
    assert sorted(Path(dataset).rglob("*")) == before
    assert main(["gc", dataset, "--keep", "1", "--delete"]) == 0
    assert capsys.readouterr().out.startswith("deleted 8 files")
    assert main(["verify", dataset]) == 0
    assert main(["show", dataset, "--version", "1"]) == 2
    assert "version 1 was collected by `nightjar gc`" in capsys.readouterr().err


def test_a_tag_can_be_shown_and_verified(dataset: str, capsys: Captured) -> None:
    assert main(["tag", dataset, "golden", "1"]) == 0
    assert "golden is version 1, which is kept" in capsys.readouterr().out
    assert main(["verify", dataset, "--version", "golden"]) == 0
    assert "version 1 is whole" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["publish", "2"], "version 2 is older than the published one, 3"),
        (["rollback", "7"], "has no version 7; it has 1 to 3"),
        (["tag", "Golden"], "tag: 'Golden' is not"),
        (["tag", "golden", "--delete"], "has no tag 'golden'; its tags: none"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_code_2(
    dataset: str, capsys: Captured, command: list[str], expected: str
) -> None:
    name, *rest = command
    assert main([name, dataset, *rest]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("keep", ["-1", "x"])
def test_gc_of_a_negative_number_is_refused(dataset: str, keep: str) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["gc", dataset, "--keep", keep])
    assert exit.value.code == 2
