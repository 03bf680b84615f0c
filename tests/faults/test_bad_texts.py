"""Every text of the catalogue, between two good ones, through the command."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from tests.faults.corpus import EMBEDDED, TRUNCATED, Outcome, run, run_parquet, surrounded
from tests.jobs import embed, write_spec

_GOOD = ("The owl hunts at night.", "ключ и замок", "def f(x):\n    return x + 1", "a")
_NOISE = bytes(random.Random(0).choices(range(33, 127), k=60))

CELLS: dict[str, tuple[bytes | None, str]] = {
    "null": (None, "null_input"),
    "empty": (b"", "empty_input"),
    "white space": (" \t\r\n\u00a0\u2028\u3000".encode(), "empty_input"),
    "lone surrogate": ("a\ud800b".encode(errors="surrogatepass"), "invalid_unicode"),
    "Latin-1": (b"caf\xe9", "invalid_unicode"),
    "half a character": ("owl й".encode()[:-1], "invalid_unicode"),
    "overlong NUL": (b"a\xc0\x80b", "invalid_unicode"),
    "NUL": (b"an\0owl", EMBEDDED),
    "control characters": (bytes(range(1, 32)) + b"\x7f", EMBEDDED),
    "bidi override": ("owl \u202etpircs\u202c".encode(), EMBEDDED),
    "byte order mark": (b"\xef\xbb\xbfowl", EMBEDDED),
    "composed": ("caf\u00e9".encode(), EMBEDDED),
    "decomposed": ("cafe\u0301".encode(), EMBEDDED),
    "zero width": ("\u200b\u200d".encode(), EMBEDDED),
    "not a character": ("\uffff\U0010ffff".encode(), EMBEDDED),
    "special tokens": (b"<|im_end|><|image_pad|>", EMBEDDED),
    "noise": (_NOISE, EMBEDDED),
    "too long": (b"word " * 500, TRUNCATED),
    "one word": (b"w" * (1 << 20), TRUNCATED),
    "one combined letter": (("e" + "\u0301" * (1 << 19)).encode(), TRUNCATED),
}

LINES: dict[str, tuple[str, str]] = {
    "null": ('"text": null', "null_input"),
    "no such field": ('"other": 1', "null_input"),
    "empty": ('"text": ""', "empty_input"),
    "lone surrogate": (r'"text": "a\ud800b"', "invalid_unicode"),
    "halves of a pair": (r'"text": "a\ude00\ud83db"', "invalid_unicode"),
    "a pair": (r'"text": "\ud83d\ude00"', EMBEDDED),
    "a number": ('"text": 7', "malformed_record"),
    "a list": ('"text": ["a", "b"]', "malformed_record"),
    "NUL": (r'"text": "an\u0000owl"', EMBEDDED),
    "said twice": ('"text": 1, "text": "the last one counts"', EMBEDDED),
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Outcome:
    """A Parquet shard of every cell."""
    good = [text.encode() for text in _GOOD]
    rows = surrounded({name: cell for name, (cell, _) in CELLS.items()}, good)
    return run_parquet(tmp_path_factory.mktemp("cells"), tiny_checkpoint, "text", rows, set(CELLS))


@pytest.mark.fault("text.null", "text.empty", "text.lone_surrogate", "text.invalid_utf8")
@pytest.mark.fault("text.odd_characters", "text.one_word", "text.too_long", "text.no_language")
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_has_its_outcome_and_its_neighbours_do_not_notice(cells: Outcome, name: str) -> None:
    cells.demand(name, CELLS[name][1])


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Outcome:
    """A JSONL shard of every line."""
    directory = tmp_path_factory.mktemp("lines")
    good = [f'"text": {json.dumps(text)}' for text in _GOOD]
    rows = surrounded({name: fields for name, (fields, _) in LINES.items()}, good)
    written = {name: f'{{"name": "{name}", {fields}}}' for name, fields in rows}
    sources = []
    for shard, names in (("bad", written.keys()), ("good", written.keys() - LINES.keys())):
        path = directory / f"{shard}.jsonl"
        path.write_text("\n".join(line for name, line in written.items() if name in names))
        sources.append(_jsonl(path))
    return run(directory, tiny_checkpoint, *sources)


def _jsonl(path: Path) -> dict[str, str]:
    return {
        "uri": str(path),
        "format": "jsonl",
        "id": "name",
        "text": "text",
        "task": "retrieval.passage",
    }


@pytest.mark.fault("text.null", "text.empty", "text.lone_surrogate", "text.malformed")
@pytest.mark.parametrize("name", LINES)
def test_a_line_has_its_outcome_and_its_neighbours_do_not_notice(lines: Outcome, name: str) -> None:
    lines.demand(name, LINES[name][1])


@pytest.mark.fault("text.malformed", "id.null")
def test_lines_that_are_no_object_are_set_aside_where_they_stand(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    good = b'{"name": "%d", "text": "owl"}'
    bad = [
        b"{oops",
        b"[1]",
        b"null",
        b'"text"',
        b'{"name": "x", "text": "caf\xe9"}',
        b'{"name": 1' + b"0" * 5000 + b"}",
        b"[" * 100_000,
        b'{"text": "nameless"}',
    ]
    lines = [line for n, broken in enumerate(bad) for line in (good % n, broken)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    assert embed(write_spec(tmp_path, tiny_checkpoint, _jsonl(tmp_path / "a.jsonl"))) == 0
    dataset = open_dataset(str(tmp_path / "out"))
    assert dataset.to_table()["id"].to_pylist() == [str(n) for n in range(len(bad))]
    aside = dataset.quarantine().to_pylist()
    assert [row["reason"] for row in aside] == ["malformed_record"] * 7 + ["null_id"]
    places = [f"{tmp_path / 'a.jsonl'}#record={2 * n + 1}" for n in range(len(bad))]
    assert [row["locator"] for row in aside] == places


@pytest.mark.slow
@pytest.mark.fault("text.huge_cell")
def test_a_cell_of_300_megabytes_is_cut_and_its_neighbours_are_embedded(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    cells = pa.array(["before", "word " * (60 << 20), "after"], pa.large_string())
    pq.write_table(pa.table({"name": ["a", "b", "c"], "text": cells}), tmp_path / "a.parquet")
    source = _jsonl(tmp_path / "a.parquet") | {"format": "parquet"}
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 0
    table = open_dataset(str(tmp_path / "out")).to_table()
    assert table.select(["id", "truncated"]).to_pylist() == [
        {"id": "a", "truncated": False},
        {"id": "b", "truncated": True},
        {"id": "c", "truncated": False},
    ]
