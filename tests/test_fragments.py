"""The rows of a snapshot whose files hold more, or less, or lend each other vectors."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cli import main
from pipeline.commit import Snapshot, commit
from pipeline.dataset import Dataset, open_dataset
from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.fragments import links_schema, read_columns
from pipeline.log import newest_entry
from pipeline.manifest import DATA, LINKS, VECTORS, Manifest, Part
from pipeline.schema import VECTOR_FILE, VECTOR_ROW, output_schema, vector_fields
from pipeline.work import WrittenFile

MADE_BY = hashlib.sha256(b"made by").hexdigest()
_VECTORS = vector_fields(dim=2, single_dtype="float32", multi_dim=2, multi_dtype="float16")
SCHEMA = output_schema(pa.int64(), [pa.field("title", pa.string())], _VECTORS, {})


def _row(number: int, title: str = "written") -> dict[str, Any]:
    """A row whose vectors follow from its number."""
    return {
        "id": number,
        "modality": "text",
        "task": "code.query",
        "title": title,
        "n_tokens": number,
        "truncated": False,
        "source_hash": hashlib.sha256(b"%d" % number).digest(),
        "embedding": [float(number), 1.0],
        "multivector": [[float(number), 0.0]] * (number % 3 + 1),
    }


class Lake:
    """A dataset that is put together by hand."""

    def __init__(self, root: Path) -> None:
        self.folder = Folder(str(root))
        self.parts: list[Part] = []
        self.numbers: dict[str, list[int]] = {}

    def put(self, path: str, table: pa.Table) -> WrittenFile:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        data = sink.getvalue().to_pybytes()
        self.folder.put(path, data)
        sha256 = hashlib.sha256(data).hexdigest()
        return WrittenFile(path=path, sha256=sha256, size=len(data), rows=table.num_rows)

    def data(self, name: str, numbers: list[int], dead: tuple[int, ...] = ()) -> str:
        table = pa.Table.from_pylist([_row(n) for n in numbers], SCHEMA)
        self._add(DATA, self.put(f"data/x/{name}.arrow", table), dead=dead)
        self.numbers[f"data/x/{name}.arrow"] = numbers
        return f"data/x/{name}.arrow"

    def links(
        self, name: str, rows: list[tuple[int, str, int]], dead: tuple[int, ...] = ()
    ) -> None:
        """Rows (id, path, row there)."""
        own = [
            _row(number, "linked")
            | {"source_hash": self._hash(path, at), VECTOR_FILE: path, VECTOR_ROW: at}
            for number, path, at in rows
        ]
        table = pa.Table.from_pylist(own, links_schema(SCHEMA))
        refers = tuple(sorted({path for _, path, _ in rows}))
        self._add(LINKS, self.put(f"links/x/{name}.arrow", table), dead=dead, refers=refers)

    def lend_only(self, path: str) -> None:
        """Take a data file's rows out of the snapshot, and leave its vectors."""
        at = next(i for i, part in enumerate(self.parts) if part.file.path == path)
        part = self.parts[at]
        self.parts[at] = Part(kind=VECTORS, shard="", unit="u", adapter="code", file=part.file)

    def commit(self) -> Dataset:
        snapshot = Snapshot(
            manifest=Manifest.of([], self.parts),
            schema=SCHEMA,
            fingerprint=MADE_BY,
            source_digest=str(len(self.parts)),
        )
        commit(self.folder, snapshot, newest_entry(self.folder))
        return open_dataset(self.folder.uri)

    def _hash(self, path: str, at: int) -> bytes:
        there = self.numbers.get(path, [])[at : at + 1]
        return bytes(_row(there[0])["source_hash"]) if there else bytes(32)

    def _add(self, kind: str, file: WrittenFile, **more: Any) -> None:
        self.parts.append(Part(kind=kind, shard="s", unit="u", adapter="code", file=file, **more))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "dataset")


def _linked(number: int, of: int) -> dict[str, Any]:
    """A row with the vectors of another, and what came with them."""
    lent = ("n_tokens", "truncated", "source_hash", "embedding", "multivector")
    return _row(number, "linked") | {name: _row(of)[name] for name in lent}


def test_dead_rows_are_no_rows(lake: Lake) -> None:
    lake.data("a", [1, 2, 3], dead=(0, 2))
    lake.data("b", [4, 5])
    dataset = lake.commit()
    assert dataset.count() == 3
    assert dataset.to_table().to_pylist() == [_row(2), _row(4), _row(5)]
    assert dataset.head(2)["id"].to_pylist() == [2, 4]


def test_a_link_has_its_own_columns_and_the_vectors_of_another_row(lake: Lake) -> None:
    a, b = lake.data("a", [1, 2, 3]), lake.data("b", [4, 5])
    lake.links("c", [(10, b, 1), (11, a, 0), (12, b, 1), (13, a, 2)], dead=(2,))
    lake.lend_only(a)
    dataset = lake.commit()
    expected = [_row(4), _row(5), _linked(10, 5), _linked(11, 1), _linked(13, 3)]
    assert dataset.to_table().to_pylist() == expected
    assert dataset.count() == 5
    assert [table.num_rows for table in dataset.read_rows()] == [2, 3]
    assert pa.concat_tables(dataset.read_rows()).to_pylist() == expected


@pytest.mark.parametrize("columns", [["id"], ["embedding"], ["n_tokens", "id"], ["title", "task"]])
def test_columns_are_chosen_of_links_as_of_others(lake: Lake, columns: list[str]) -> None:
    a = lake.data("a", [1, 2], dead=(0,))
    lake.links("c", [(10, a, 0)])
    table = lake.commit().to_table(columns)
    assert table.column_names == columns
    rows = [_row(2), _linked(10, 1)]
    assert table.to_pylist() == [{name: row[name] for name in columns} for row in rows]


def test_a_filter_may_ask_for_columns_that_are_not_wanted(lake: Lake) -> None:
    a = lake.data("a", [1, 2, 3], dead=(0,))
    lake.links("c", [(10, a, 0), (11, a, 2)])
    dataset = lake.commit()
    found = dataset.to_table(["id"], filter=pc.field("n_tokens") == 3)
    assert found.to_pylist() == [{"id": 3}, {"id": 11}]
    assert dataset.to_table(["id"], filter=pc.field("id") > 99).num_rows == 0


def test_what_lends_vectors_is_verified_and_kept(lake: Lake, capsys: Any) -> None:
    a = lake.data("a", [1, 2])
    lake.links("c", [(10, a, 0)])
    lake.lend_only(a)
    dataset = lake.commit()
    assert {file.path for file in dataset.files} == {a, "links/x/c.arrow"}
    assert main(["verify", dataset.uri]) == 0
    assert "1 embeddings" in capsys.readouterr().out
    lake.folder.delete(a)
    with pytest.raises(OutputError, match=f"{a}, a file of version 1, is gone"):
        dataset.to_table()


def test_links_that_lead_astray_are_found(lake: Lake, capsys: Any) -> None:
    a, b = lake.data("a", [1, 2]), lake.data("b", [3])
    lake.links("well", [(10, a, 1), (11, b, 0), (12, a, 0)])
    assert main(["verify", lake.commit().uri]) == 0
    assert "every link leads to its content" in capsys.readouterr().out
    # an offence of the dead is none
    lake.links("dead", [(10, a, 0), (11, b, 7)], dead=(1,))
    assert main(["verify", lake.commit().uri]) == 0
    for name, lent in (("far", (a, 2)), ("less", (a, -1)), ("gone", ("data/x/c.arrow", 0))):
        lake.links(name, [(10, a, 0), (11, *lent)])
    lake.numbers[b] = [4]
    lake.links("other", [(10, b, 0)])
    capsys.readouterr()
    assert main(["verify", lake.commit().uri]) == 1
    told = capsys.readouterr().err
    assert told.startswith("nightjar: 4 of the 8 files of version 3 cannot be trusted")
    for sentence in (
        f"far.arrow links to row 2 of {a}, which has 2\n",
        f"less.arrow links to row -1 of {a}, which has 2\n",
        "gone.arrow links to data/x/c.arrow, which is no file of this version\n",
        f"other.arrow links to row 0 of {b}, which has other content\n",
    ):
        assert sentence in told


def test_a_link_to_the_same_text_for_another_task_leads_astray(lake: Lake) -> None:
    a = lake.data("a", [1])
    lake.links("c", [(10, a, 0)])
    links = read_columns(lake.folder, "links/x/c.arrow", links_schema(SCHEMA).names)
    at = links.schema.get_field_index("task")
    links = links.set_column(at, links.schema.field(at), pa.array(["code.passage"]))
    part = replace(lake.parts.pop(), file=lake.put("links/x/d.arrow", links))
    lake.parts.append(part)
    assert lake.commit().astray() == [
        f"links/x/d.arrow links to row 0 of {a}, which has other content"
    ]


@given(data=st.data())
def test_any_snapshot_holds_what_its_parts_say(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    expected: list[dict[str, Any]] = []
    written: list[tuple[str, int, int]] = []
    for name in range(data.draw(st.integers(1, 3))):
        numbers = data.draw(st.lists(st.integers(1, 99), min_size=1, max_size=5))
        dead = _some(data, len(numbers))
        path = lake.data(f"d{name}", numbers, dead)
        written += [(path, at, number) for at, number in enumerate(numbers)]
        expected += [_row(n) for at, n in enumerate(numbers) if at not in dead]
    for name in range(data.draw(st.integers(0, 3))):
        lent = data.draw(st.lists(st.sampled_from(written), min_size=1, max_size=6))
        dead = _some(data, len(lent))
        lake.links(f"l{name}", [(1000 + i, path, at) for i, (path, at, _) in enumerate(lent)], dead)
        expected += [
            _linked(1000 + i, number) for i, (_, _, number) in enumerate(lent) if i not in dead
        ]
    dataset = lake.commit()
    assert dataset.to_table().to_pylist() == expected
    assert dataset.count() == len(expected)
    assert pa.concat_tables(dataset.read_rows()).to_pylist() == expected
    assert dataset.astray() == []


def _some(data: st.DataObject, rows: int) -> tuple[int, ...]:
    return tuple(np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))))


def test_a_manifest_with_dead_rows_that_a_file_does_not_have_is_refused(lake: Lake) -> None:
    lake.data("a", [1, 2], dead=(2,))
    with pytest.raises(OutputError, match=r"dead rows that data/x/a\.arrow does not have"):
        lake.commit()
