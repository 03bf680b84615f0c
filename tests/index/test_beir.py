"""Every layout of queries and judgements is read, and every mistake in one is a sentence."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SpecError
from pipeline.index.beir import read_asked
from pipeline.index.spec import EvaluateSpec
from pipeline.spec_file import parse_spec

_QUERIES = [{"_id": "q1", "text": "who hunts"}, {"_id": "7", "text": "what opens", "metadata": {}}]
_QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\r\nq1\td 2\t0\n\n7\t10\t1\n"


def _spec(queries: Mapping[str, Any], qrels: str | None) -> EvaluateSpec:
    raw = {"dataset": {"uri": "d"}, "model": {"path": "m"}, "queries": queries, "qrels": qrels}
    return parse_spec(raw, (), EvaluateSpec)


def _jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


def _parquet(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table({name.replace("_id", "-id"): c for name, c in columns.items()}), path)
    return str(path)


def _beir(tmp_path: Path, qrels: str = _QRELS) -> EvaluateSpec:
    (tmp_path / "test.tsv").write_text(qrels)
    queries = _jsonl(tmp_path / "queries.jsonl", [*_QUERIES, {"_id": "alone", "text": "?"}])
    return _spec({"uri": queries}, str(tmp_path / "test.tsv"))


def test_the_layout_of_beir_is_read_and_what_does_not_match_is_counted(tmp_path: Path) -> None:
    asked = read_asked(_beir(tmp_path, _QRELS + "gone\td1\t1\ngone\td2\t1\n"))
    assert asked.texts == {"q1": "who hunts", "7": "what opens"}
    assert asked.judgements == {"q1": {"d1": 2.0, "d 2": 0.0}, "7": {"10": 1.0}}
    assert (asked.unjudged, asked.astray) == (1, 2)


def test_numbers_in_parquet_are_the_text_of_a_tsv(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("query-id\tcorpus-id\tscore\n7\t10\t1\n")
    uri = _parquet(tmp_path / "q.parquet", query_id=[7, 8], query=["what opens", "?"])
    asked = read_asked(
        _spec({"uri": uri, "id": "query-id", "text": "query"}, str(tmp_path / "q.tsv"))
    )
    assert asked.judgements == {"7": {"10": 1.0}}
    qrels = _parquet(tmp_path / "r.parquet", query_id=[7], corpus_id=[10], score=[1], answer=["x"])
    assert read_asked(_spec({"uri": uri, "id": "query-id", "text": "query"}, qrels)) == asked
    rows = [{"query-id": 7, "corpus-id": 10, "score": 1}]
    qrels = _jsonl(tmp_path / "r.jsonl", rows)
    assert read_asked(_spec({"uri": uri, "id": "query-id", "text": "query"}, qrels)) == asked


def test_a_visual_set_of_one_file_names_its_pages_beside_its_queries(tmp_path: Path) -> None:
    texts = ["growth?", None, "margin?", "growth?"]
    pages = ["a.png", "b.png", "c.png", "d.png"]
    for part in (0, 1):
        rows = slice(2 * part, 2 * part + 2)
        columns = {"query": texts[rows], "image_filename": pages[rows], "image": [b"x", b"y"]}
        pq.write_table(pa.table(columns), tmp_path / f"test-{part}.parquet")
    queries = {"uri": f"{tmp_path}/*.parquet", "text": "query", "relevant": "image_filename"}
    asked = read_asked(_spec(queries, None))
    assert asked.texts == {"0": "growth?", "2": "margin?"}
    assert asked.judgements == {"0": {"a.png": 1.0, "d.png": 1.0}, "2": {"c.png": 1.0}}
    many = pa.table({"query": ["?"], "pages": [["a.png", "b.png"]], "number": [9]})
    pq.write_table(many, tmp_path / "many.pq.parquet")
    queries = {"uri": str(tmp_path / "many.pq.parquet"), "text": "query", "relevant": "pages"}
    asked = read_asked(_spec(queries | {"id": "number"}, None))
    assert asked.judgements == {"9": {"a.png": 1.0, "b.png": 1.0}}


@pytest.mark.parametrize(
    ("qrels", "told"),
    [
        ("query-id\tscore\n", "line 1: expected a column 'corpus-id'; there are query-id, score"),
        ("query-id\tcorpus-id\tscore\nq1\td1\thigh\n", "line 2: expected a number as score"),
        ("query-id\tcorpus-id\tscore\nq1\td1\tnan\n", "line 2: expected a number as score"),
        ("query-id\tcorpus-id\tscore\nq1\td1\n", "line 2: expected 3 columns between tabs, not 2"),
        ("query-id\tcorpus-id\tscore\nq1\t\t1\n", "line 2: expected text or a whole number as co"),
        ("query-id\tcorpus-id\tscore\n", "holds nothing"),
        (_QRELS + "q1\td1\t1\n", "line 6: 'd1' has another score for 'q1' before"),
        (
            "query-id\tcorpus-id\tscore\nx\td\t1\n",
            r"judges none of the queries of .*; expected ids such as 'q1' as query-id, and .* 'x'",
        ),
    ],
)
def test_a_mistake_in_the_judgements_is_a_sentence(tmp_path: Path, qrels: str, told: str) -> None:
    with pytest.raises(SpecError, match=f"^qrels: .*test.tsv.*{told}"):
        read_asked(_beir(tmp_path, qrels))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "q"}, "line 2: expected a column '_id'; there are id"),
        ({"_id": "q", "text": " "}, "line 2: expected what is asked as text, not ' '"),
        ({"_id": None, "text": "x"}, "line 2: expected text or a whole number as _id, not None"),
        ({"_id": True, "text": "x"}, "line 2: expected text or a whole number as _id, not True"),
        ({"_id": "q1", "text": "x"}, "line 2: the query 'q1' is there twice"),
        ([1], "line 2: expected a JSON object, not list"),
    ],
)
def test_a_mistake_in_the_queries_is_a_sentence(tmp_path: Path, row: Any, told: str) -> None:
    spec = _beir(tmp_path)
    _jsonl(tmp_path / "queries.jsonl", [_QUERIES[0], row])
    with pytest.raises(SpecError, match=f"^queries.uri: .*{told}"):
        read_asked(spec)


def test_a_mistake_in_a_file_is_a_sentence(tmp_path: Path) -> None:
    spec = _beir(tmp_path)
    queries = tmp_path / "queries.jsonl"
    queries.write_bytes(b'{"_id": "q1", "text": "a"}\n{oops\n')
    with pytest.raises(SpecError, match="line 2: expected a JSON object: "):
        read_asked(spec)
    queries.write_bytes(b"\xff")
    with pytest.raises(SpecError, match="byte 0 is not UTF-8"):
        read_asked(spec)
    queries.unlink()
    with pytest.raises(SpecError, match=r"^queries.uri: '.*' is not there"):
        read_asked(spec)
    (tmp_path / "q.parquet").write_bytes(b"no")
    with pytest.raises(SpecError, match="cannot be read"):
        read_asked(_spec({"uri": str(tmp_path / "q.parquet")}, "r.tsv"))
    (tmp_path / "q.txt").touch()
    with pytest.raises(SpecError, match=r"of no known format; expected one of \.jsonl"):
        read_asked(_spec({"uri": str(tmp_path / "q.txt")}, "r.tsv"))
    uri = _parquet(tmp_path / "p.parquet", query_id=["a"], query=[None])
    with pytest.raises(SpecError, match="expected a column '_id'; there are query-id, query"):
        read_asked(_spec({"uri": uri}, "r.tsv"))
    with pytest.raises(SpecError, match="row 0: expected what is asked as query, not None"):
        read_asked(_spec({"uri": uri, "id": "query-id", "text": "query"}, "r.tsv"))
    both = pa.table({"id": ["a", "a"], "query": ["?", "!"], "page": ["x", "y"]})
    pq.write_table(both, tmp_path / "same.parquet")
    named = {"uri": str(tmp_path / "same.parquet"), "text": "query", "relevant": "page"}
    with pytest.raises(SpecError, match=r"^queries.id: 'id' is the same for queries of several"):
        read_asked(_spec(named | {"id": "id"}, None))


@pytest.mark.parametrize(("relevant", "qrels"), [("page", "r.tsv"), (None, None)])
def test_judgements_come_from_one_place(relevant: str | None, qrels: str | None) -> None:
    with pytest.raises(SpecError, match=r"qrels or queries.relevant: expected one of the two"):
        _spec({"uri": "q.parquet", "relevant": relevant}, qrels)


def test_files_are_read_where_they_are() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/beir/queries.jsonl", b'\xef\xbb\xbf{"_id": 1, "text": "a"}')
    files.pipe("/beir/test.tsv", b"query-id\tcorpus-id\tscore\n1\td\t0.5")
    asked = read_asked(_spec({"uri": "memory://beir/queries.jsonl"}, "memory://beir/test.tsv"))
    assert asked.judgements == {"1": {"d": 0.5}}
