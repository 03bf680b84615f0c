"""What a snapshot holds, checked byte by byte; what was set aside, with reasons."""

import json
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.printed import printed
from pipeline import open_dataset
from tests.jobs import embed, write_images, write_jsonl, write_parquet, write_spec


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> str:
    """Of six good rows and three bad ones."""
    root = tmp_path_factory.mktemp("verify")
    texts = ["fine", None, "  ", None]
    sources = [
        write_parquet(root / "a.parquet") | {"task": "text-matching"},
        write_parquet(root / "b.parquet", body=texts),
    ]
    assert embed(write_spec(root, tiny_checkpoint, sources)) == 0
    return str(root / "out")


def test_a_whole_snapshot_is_said_to_be_whole(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", dataset]) == 0
    files = open_dataset(dataset).files
    assert f"version 1 is whole: {len(files)} files, " in capsys.readouterr().out


def test_every_flipped_byte_and_every_lost_file_is_found(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, file in enumerate(open_dataset(dataset).files):
        path = Path(dataset, file.path)
        data = path.read_bytes()
        at = (number * 997) % len(data)
        path.write_bytes(bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]]))
        assert main(["verify", dataset]) == 1
        assert f"{file.path} is damaged: its sha256 has changed" in capsys.readouterr().err
        path.unlink()
        assert main(["verify", dataset]) == 1
        assert f"{file.path} is gone" in capsys.readouterr().err
        path.write_bytes(data)
    assert main(["verify", dataset]) == 0


def test_the_quarantine_is_listed_by_reason_with_examples(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quarantine", dataset, "--examples", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "version 1: 5 embedded, 3 set aside"
    assert [line.split() for line in lines if line.endswith("_input")] == [
        ["2", "null_input"],
        ["1", "empty_input"],
    ]
    assert sum("b.parquet" in line for line in lines) == 2
    assert main(["quarantine", dataset, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [reason["items"] for reason in found["reasons"]] == [2, 1]
    assert [example["id"] for example in found["reasons"][0]["examples"]] == ["11", "13"]


def test_a_snapshot_without_a_quarantine_has_none_to_list(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl")
    lines = Path(source["uri"]).read_text().replace("{oops\n", "")
    Path(source["uri"]).write_text(lines)
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 0
    capsys.readouterr()
    assert main(["quarantine", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "version 1: 2 embedded, 0 set aside\n"


_HOSTILE = "\x1b]0;owned\x07\nversion 9 is whole\u202e\x9b2J"
_HARMLESS = r"\x1b]0;owned\x07\nversion 9 is whole\u202e\x9b2J"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (_HOSTILE, _HARMLESS),
        ("ключ 鍵 a b", "ключ 鍵 a b"),
        (b"\x1b[", "1b5b"),
        ("\ud800", r"\ud800"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        (7, "7"),
    ],
)
def test_what_a_terminal_does_not_show_as_it_is_is_spelled_out(
    value: object, expected: str
) -> None:
    assert printed(value) == expected


@pytest.mark.fault("security.terminal")
def test_no_id_locator_or_value_of_a_corpus_reaches_the_terminal_as_it_is(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images")
    (tmp_path / "images" / f"{_HOSTILE.replace('/', '')}.png").write_bytes(b"no image")
    ids = [f"{_HOSTILE}{row}" for row in range(4)]
    texts = write_parquet(tmp_path / "a.parquet", doc=ids, title=ids, body=["a", "", "b", "c"])
    assert embed(write_spec(tmp_path, tiny_checkpoint, [texts, images])) == 0
    for command in ("show", "quarantine"):
        capsys.readouterr()
        assert main([command, str(tmp_path / "out")]) == 0
        shown = capsys.readouterr().out
        assert _HARMLESS in shown
        assert all(c.isprintable() or c == "\n" for c in shown)
        assert "\nversion 9" not in shown
    # and so it is with what a run says when it is refused
    none = ["--set", "limits.quarantine_share=0", "--set", f"output.uri={tmp_path / 'other'}"]
    assert embed(tmp_path / "job.yaml", *none) == 1
    told = capsys.readouterr().err
    assert _HARMLESS in told
    assert all(c.isprintable() or c == "\n" for c in told)
    assert "\nversion 9" not in told
