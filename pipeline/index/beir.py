"""Queries and judgements of an evaluation, in the layouts that retrieval benchmarks come in.

    BEIR              queries.jsonl: {"_id": "q1", "text": "..."}
                      qrels/test.tsv: query-id, corpus-id, score, with a header
    ViDoRe 2 and 3    the same in Parquet: query-id and query; query-id, corpus-id, score
    ViDoRe 1          one Parquet file: query, and image_filename of the page that answers it

JSONL, Parquet and TSV are told apart by the end of the name. Of Parquet only the columns that are
wanted are fetched, so that pages beside the queries cost nothing. Ids are compared as text: one is
a number in a Parquet file and text in a TSV.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SpecError
from pipeline.index.spec import EvaluateSpec, QueriesSpec
from pipeline.storage import StoredObject, list_objects, open_object, read_object

_QUERY, _DOCUMENT, _SCORE = "query-id", "corpus-id", "score"
_ID = "_id"
_JSONL, _PARQUET, _TSV = (".jsonl", ".ndjson", ".json"), (".parquet",), (".tsv",)

Judgements = dict[str, dict[str, float]]
"""Grades by query and document; those above 0 are relevant."""
Row = tuple[str, Mapping[str, Any]]
"""Where it is, for whoever has to mend it, and its columns."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked, and what should be found."""

    texts: Mapping[str, str]
    """By the query's id; only queries with judgements."""
    judgements: Judgements
    """Of these queries."""
    unjudged: int
    """Queries without a judgement, which are left out."""
    astray: int
    """Judgements of queries that are not there, which are left out."""


def read_asked(spec: EvaluateSpec) -> Asked:
    """The queries and judgements of a spec.

    Raises:
        SpecError: a file is not there or cannot be read, a column is missing, an id, a text or a
            score is none, or no query is judged.
    """
    if spec.qrels is None:
        return _read_visual(spec.queries, str(spec.queries.relevant))
    texts = _read_queries(spec.queries)
    judgements = _read_judgements(spec.qrels)
    found = {name: grades for name, grades in judgements.items() if name in texts}
    if not found:
        query = next(iter(texts))
        raise SpecError(
            f"qrels: {spec.qrels!r} judges none of the queries of {spec.queries.uri!r}; expected "
            f"ids such as {query!r} as {_QUERY}, and found {next(iter(judgements))!r}"
        )
    return Asked(
        texts={name: text for name, text in texts.items() if name in found},
        judgements=found,
        unjudged=len(texts) - len(found),
        astray=sum(len(grades) for name, grades in judgements.items() if name not in found),
    )


def _read_queries(spec: QueriesSpec) -> dict[str, str]:
    column = spec.id or _ID
    texts: dict[str, str] = {}
    for where, row in _rows("queries.uri", spec.uri, (column, spec.text), (*_JSONL, *_PARQUET)):
        name, text = _id(where, column, row[column]), row[spec.text]
        if not isinstance(text, str) or not text.strip():
            raise SpecError(f"{where}: expected what is asked as {spec.text}, not {text!r}")
        if name in texts:
            raise SpecError(f"{where}: the query {name!r} is there twice")
        texts[name] = text
    return _some("queries.uri", spec.uri, texts)


def _read_judgements(uri: str) -> Judgements:
    found: Judgements = {}
    columns = (_QUERY, _DOCUMENT, _SCORE)
    for where, row in _rows("qrels", uri, columns, (*_TSV, *_JSONL, *_PARQUET)):
        query, document = (_id(where, column, row[column]) for column in columns[:2])
        grade = _grade(where, row[_SCORE])
        if found.setdefault(query, {}).setdefault(document, grade) != grade:
            raise SpecError(f"{where}: {document!r} has another {_SCORE} for {query!r} before")
    return _some("qrels", uri, found)


def _read_visual(spec: QueriesSpec, relevant: str) -> Asked:
    """Queries beside the documents that answer them: rows of one text are one query.

    That is how the authors of ViDoRe evaluate: what several pages answer is asked once. Rows
    without a text are pages that nobody asks for.
    """
    columns = (spec.text, relevant, *(() if spec.id is None else (spec.id,)))
    names: dict[str, str] = {}
    found: Judgements = {}
    rows = _rows("queries.uri", spec.uri, columns, (*_JSONL, *_PARQUET))
    for number, (where, row) in enumerate(rows):
        text = row[spec.text]
        if text is None or text == "":
            continue
        if not isinstance(text, str):
            raise SpecError(f"{where}: expected what is asked as {spec.text}, not {text!r}")
        name = str(number) if spec.id is None else _id(where, spec.id, row[spec.id])
        name = names.setdefault(text, name)
        documents = row[relevant] if isinstance(row[relevant], list) else [row[relevant]]
        for document in documents:
            found.setdefault(name, {})[_id(where, relevant, document)] = 1.0
    texts = {name: text for text, name in names.items() if name in found}
    if len(set(names.values())) < len(names):
        raise SpecError(f"queries.id: {spec.id!r} is the same for queries of several texts")
    return Asked(
        texts=_some("queries.uri", spec.uri, texts),
        judgements=found,
        unjudged=len(names) - len(texts),
        astray=0,
    )


def _rows(key: str, uri: str, columns: Sequence[str], ends: Sequence[str]) -> Iterator[Row]:
    """The rows of a file, or of several that a glob names, each with all the columns."""
    try:
        found = list_objects(uri)
        if not found:
            raise SpecError(f"{key}: {uri!r} is not there")
        for stored in found:
            name = stored.uri.lower()
            if not name.endswith(tuple(ends)):
                raise SpecError(
                    f"{key}: {stored.uri!r} is of no known format; expected one of "
                    f"{', '.join(ends)}"
                )
            where = f"{key}: {stored.uri!r}"
            if name.endswith(_PARQUET):
                yield from _parquet(where, stored, columns)
            else:
                read = _tsv if name.endswith(_TSV) else _jsonl
                yield from read(where, _lines(where, stored.uri), columns)
    except (OSError, pa.ArrowException) as error:
        raise SpecError(f"{key}: {uri!r} cannot be read: {str(error).splitlines()[0]}") from error


def _lines(where: str, uri: str) -> list[str]:
    try:
        text = read_object(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{where}: byte {error.start} is not UTF-8") from None
    return [line.removesuffix("\r") for line in text.split("\n")]


def _jsonl(where: str, lines: Iterable[str], columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        at = f"{where}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{at}: expected a JSON object: {error}") from None
        if not isinstance(row, dict):
            raise SpecError(f"{at}: expected a JSON object, not {type(row).__name__}")
        _demand(at, columns, row)
        yield at, row


def _tsv(where: str, lines: Sequence[str], columns: Sequence[str]) -> Iterator[Row]:
    head = lines[0].split("\t")
    _demand(f"{where}, line 1", columns, head)
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        at = f"{where}, line {number}"
        if len(cells) != len(head):
            raise SpecError(f"{at}: expected {len(head)} columns between tabs, not {len(cells)}")
        yield at, dict(zip(head, cells, strict=True))


def _parquet(where: str, stored: StoredObject, columns: Sequence[str]) -> Iterator[Row]:
    with open_object(stored) as stream, pq.ParquetFile(stream) as file:
        _demand(where, columns, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(columns=list(columns)):
            for row in batch.to_pylist():
                yield f"{where}, row {number}", row
                number += 1


def _demand(where: str, columns: Iterable[str], there: Iterable[str]) -> None:
    known = list(there)
    for column in columns:
        if column not in known:
            raise SpecError(
                f"{where}: expected a column {column!r}; there are {', '.join(map(str, known))}"
            )


def _id(where: str, column: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise SpecError(f"{where}: expected text or a whole number as {column}, not {value!r}")
    return str(value)


def _grade(where: str, value: Any) -> float:
    try:
        grade = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        grade = math.nan
    if not math.isfinite(grade):
        raise SpecError(f"{where}: expected a number as {_SCORE}, not {value!r}")
    return grade


def _some(key: str, uri: str, found: dict[str, Any]) -> dict[str, Any]:
    if not found:
        raise SpecError(f"{key}: {uri!r} holds nothing")
    return found
