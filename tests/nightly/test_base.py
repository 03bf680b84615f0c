"""The files of a snapshot, read for a comparison: which rows, with which signs, which places."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.folder import Folder
from pipeline.fragments import put_table
from pipeline.manifest import DATA, Part
from pipeline.nightly.base import base_rows, first_places, places_in
from pipeline.nightly.signs import SIGN, content_of, signs
from pipeline.schema import output_schema

_SCHEMA = output_schema(pa.int64(), [pa.field("title", pa.string())], [], {})
_FILES = 40


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.fixture
def parts(folder: Folder) -> list[Part]:
    """Files of three rows; of each the middle one is dead."""
    made = []
    for number in range(_FILES):
        file = put_table(folder, DATA, "f" * 8, f"{number:032}", _table(number))
        part = Part(kind=DATA, shard=f"s{number}", unit="", adapter="", file=file, dead=(1,))
        made.append(part)
    return made


def _hash(number: int, row: int) -> bytes:
    # all files have one content in common
    return (b"shared" if row == 2 else b"%d %d" % (number, row)).ljust(32)


def _table(number: int) -> pa.Table:
    columns = {
        "id": [number * 3 + row for row in range(3)],
        "modality": ["text"] * 3,
        "task": ["code.query"] * 3,
        "title": ["a", None, "c"],
        "n_tokens": [1] * 3,
        "truncated": [False] * 3,
        "source_hash": [_hash(number, row) for row in range(3)],
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in _SCHEMA], schema=_SCHEMA)


def test_every_living_row_is_there_with_its_signs_and_its_place(
    folder: Folder, parts: list[Part]
) -> None:
    # as a worker that has some of them
    numbered = list(enumerate(parts))[5:]
    rows = base_rows(_SCHEMA, folder, numbered)
    assert rows["part"].to_pylist() == [n for n, _ in numbered for _ in range(2)]
    assert rows["at"].to_pylist() == [0, 2] * len(numbered)
    for at, (number, part) in enumerate(numbered):
        table = _table(number).take([0, 2]).combine_chunks()
        columns = [
            table[name].combine_chunks()
            for name in ("id", "task", "modality", "source_hash", "title")
        ]
        expected = signs(part.shard, _SCHEMA, *columns[:4], columns[4:])
        assert rows.slice(2 * at, 2).select(expected.column_names).equals(expected)


def test_only_wanted_contents_have_a_place_and_the_first_counts(
    folder: Folder, parts: list[Part]
) -> None:
    wanted = [
        content_of("code.query", hashed) for hashed in (_hash(7, 0), _hash(9, 1), _hash(0, 2))
    ]
    absent = content_of("code.passage", _hash(7, 0))
    asked = pa.array([*wanted, absent], SIGN)
    numbered = list(enumerate(parts))
    found = [places_in(asked, folder, numbered[:20]), places_in(asked, folder, numbered[20:])]
    assert sum(table.num_rows for table in found) == 2 + _FILES
    places = first_places(parts, found)
    expected = [(parts[7].file.path, 0), (parts[9].file.path, 1), (parts[0].file.path, 2)]
    # dead rows have vectors too
    assert places == dict(zip(wanted, expected, strict=True))
