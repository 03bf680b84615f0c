"""Pairs: a query and what answers it, read from Parquet; a bad one is set aside with its reason.

All columns that are needed are held in memory as Arrow, images as they are encoded.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import SourceError, SpecError
from pipeline.storage import list_objects, open_object
from pipeline.training.spec import PairsSpec, Prompt

NOTHING, UNTOLD = -1, -2
"""Of a square: it shows paper, or something that is not of the query (null in a file)."""

_SUFFIXES = (".parquet",)
_PARTS = 1 << 20
"""Families fall into so many parts, of which a share is held out."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A query and what answers it."""

    query: str
    """The question, without its prompt."""
    text: str | None
    """What answers it, if that is a text."""
    image: bytes | None
    """What answers it, if that is an image, encoded."""
    shown: NDArray[np.int32] | None
    """Of each square of the image, row by row, the place of the query's character that it shows,
    `NOTHING` or `UNTOLD`; None where nobody has said so."""
    negatives: tuple[str, ...]
    """Texts that do not."""
    grade: float | None
    """How close the two are, if somebody said so."""
    taught: NDArray[np.float32] | None
    """A teacher's vector of the query, of any length, if there is a teacher."""
    prompts: tuple[Prompt, Prompt]
    """Of the query, and of the texts that answer it."""

    @property
    def answer(self) -> str | bytes:
        """The text or the image."""
        answer = self.image if self.text is None else self.text
        assert answer is not None
        return answer


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A pair that cannot be trained on."""

    uri: str
    """Of the file."""
    row: int
    """Its number in the file."""
    reason: str
    """What is wrong with it."""


class Pairs:
    """Those of one entry of a spec, in the order of its files."""

    def __init__(self, spec: PairsSpec, table: pa.Table, set_aside: Sequence[SetAside]) -> None:
        """Take a table with the columns of `_settled`."""
        self.spec = spec
        self.set_aside = tuple(set_aside)
        self._table = table

    def __len__(self) -> int:
        rows: int = self._table.num_rows
        return rows

    def __getitem__(self, row: int) -> Pair:
        value: dict[str, Any] = self._table.slice(row, 1).to_pylist()[0]
        return Pair(
            query=value["query"],
            text=value["text"],
            image=value["image"],
            shown=None if value["shown"] is None else _places(value["shown"]),
            negatives=tuple(value["negatives"] or ()),
            grade=value["grade"],
            taught=None if value["taught"] is None else np.array(value["taught"], np.float32),
            prompts=(self.spec.prompts[0], self.spec.prompts[1]),
        )

    @cached_property
    def taught_ND(self) -> NDArray[np.float32] | None:
        """A teacher's vectors of all queries; None unless it has said something of each."""
        column = self._table["taught"].combine_chunks()
        flat, rows = column.flatten(), len(column)
        if not rows or column.null_count or flat.null_count:
            return None
        if (column.value_lengths().to_numpy() * rows != len(flat)).any():
            return None
        vectors: NDArray[np.float32] = flat.to_numpy().reshape(rows, -1)
        return vectors

    def texts(self) -> Iterator[str]:
        """All texts, for a tokenizer to learn from."""
        for name in ("query", "text"):
            for value in self._table[name]:
                if value.is_valid:
                    yield value.as_py()

    @cached_property
    def _parts(self) -> NDArray[np.int64]:
        """To which part of all families each pair belongs."""
        families = self._table["family"].to_pylist()
        digests = (hashlib.sha256(str(family).encode()).digest() for family in families)
        return np.array([int.from_bytes(d[:8], "big") % _PARTS for d in digests], np.int64)

    def held_out(self, share: float) -> NDArray[np.int64]:
        """The numbers of the pairs of a share of the families."""
        return np.flatnonzero(self._parts < share * _PARTS)

    def trained_on(self, share: float) -> NDArray[np.int64]:
        """The numbers of all others."""
        return np.flatnonzero(self._parts >= share * _PARTS)


def _places(shown: Sequence[int | None]) -> NDArray[np.int32]:
    return np.array([UNTOLD if place is None else place for place in shown], np.int32)


def read_pairs(spec: PairsSpec) -> Pairs:
    """Read the pairs of one entry of a spec.

    Raises:
        SourceError: there is no such file, or it cannot be read.
        SpecError: a column is not there, or of another type.
    """
    found = list_objects(spec.uri, _SUFFIXES)
    if not found:
        raise SourceError(f"pairs.uri: nothing is at {spec.uri!r}")
    tables: list[pa.Table] = []
    set_aside: list[SetAside] = []
    for stored in found:
        with open_object(stored) as stream:
            try:
                file = pq.ParquetFile(stream)
                read = file.read(columns=_columns(spec, file.schema_arrow.names, stored.uri))
            except pa.ArrowException as error:
                raise SourceError(f"{stored.uri!r} cannot be read as Parquet: {error}") from error
        table = _settled(spec, read, stored.uri)
        reasons = list(_reasons(table))
        wrong = [(row, reason) for row, reason in enumerate(reasons) if reason is not None]
        set_aside += [SetAside(uri=stored.uri, row=row, reason=why) for row, why in wrong]
        tables.append(table.filter(pa.array([reason is None for reason in reasons])))
    return Pairs(spec, pa.concat_tables(tables), set_aside)


def _columns(spec: PairsSpec, names: Sequence[str], uri: str) -> list[str]:
    wanted = {
        "query": spec.query,
        "positive": spec.positive,
        "image": spec.image,
        "shown": spec.shown,
        "negatives": spec.negatives,
        "grade": spec.grade,
        "teacher": spec.teacher,
        "family": spec.family,
    }
    for key, column in wanted.items():
        if column is not None and column not in names:
            raise SpecError(
                f"pairs.{key}: {column!r} is no column of {uri!r}; it has {', '.join(names)}"
            )
    return list(dict.fromkeys(column for column in wanted.values() if column is not None))


def _settled(spec: PairsSpec, read: pa.Table, uri: str) -> pa.Table:
    """The columns by their own names and of one type."""
    kinds = {
        "query": (spec.query, pa.string()),
        "text": (spec.positive, pa.string()),
        "image": (spec.image, pa.binary()),
        "shown": (spec.shown, pa.list_(pa.int32())),
        "negatives": (spec.negatives, pa.list_(pa.string())),
        "grade": (spec.grade, pa.float64()),
        "taught": (spec.teacher, pa.list_(pa.float32())),
        # by itself, a pair is its own family: what it asks
        "family": (spec.family or spec.query, pa.string()),
    }
    columns = {}
    for name, (column, kind) in kinds.items():
        if column is None:
            columns[name] = pa.nulls(len(read), kind)
            continue
        try:
            columns[name] = read[column].cast(kind)
        except pa.ArrowException as error:
            raise SpecError(
                f"pairs: the column {column!r} of {uri!r} is {read[column].type}, expected {kind}"
            ) from error
    return pa.table(columns).replace_schema_metadata(None)


def _reasons(table: pa.Table) -> Iterator[str | None]:
    """Why each row is no pair; None where it is one."""
    for batch in table.select(["query", "text", "image", "shown"]).to_batches():
        columns = (column.to_pylist() for column in batch)
        for query, text, image, shown in zip(*columns, strict=True):
            if not (query or "").strip():
                yield "the query is empty or null"
            elif image is None and not (text or "").strip():
                yield "what answers it is empty or null"
            elif image is not None and text is not None:
                yield "it is answered by a text and by an image: make two pairs of it"
            elif not all(p is None or NOTHING <= p < len(query) for p in shown or ()):
                yield "a square shows a character that the query does not have"
            else:
                yield None
