"""Exact search over a snapshot: every vector is scored, and none of a local disk is copied.

Files are mapped into memory as they are: a search of single vectors is one matrix-vector product a
file, at the speed of memory. A row is scored by where its vectors lie, so that rows that are links
cost nothing more. Files of an object store are fetched once, and held.

Legend: N rows of the snapshot, V vectors of its files, T vectors of the query, D size of a vector.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import SpecError
from pipeline.index.documents import MULTIVECTOR
from pipeline.index.filters import All, Comparison, Condition, OneOf, columns_of
from pipeline.index.layout import (
    IDENTITY,
    MULTI,
    POINT,
    SINGLE,
    kept_columns,
    payload_type,
)
from pipeline.index.points import ORIGIN_FILE, ORIGIN_ROW, as_payload, point_ids
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.scoring import maxsim_of, nearest
from pipeline.index.store import Hit, Question, hits_of
from pipeline.manifest import DATA, VECTORS, read_manifest
from pipeline.schema import largest_single, vector_columns


class ExactSearch:
    """A snapshot, opened to be searched."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Open all its files.

        Args:
            snapshot: to be searched.
        """
        self._snapshot = snapshot
        folder = snapshot.folder
        self._files: dict[str, pa.Table] = {}
        for part in read_manifest(folder, snapshot.entry.manifest).parts(DATA, VECTORS):
            path = part.file.path
            source = folder.path(path) if folder.is_local else pa.py_buffer(folder.get(path))
            self._files[path] = _table(source)
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._payloads: dict[str, pa.ChunkedArray] = {}
        self._row_of: dict[bytes, int] = {}

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """Of the columns that conditions may ask for, and that hits have."""
        schema = self._snapshot.schema
        names = [*IDENTITY, *kept_columns(schema)]
        return {name: payload_type(schema.field(name).type) for name in names}

    @property
    def vectors(self) -> AbstractSet[str]:
        """The kinds of vectors that can be compared."""
        schema = self._snapshot.schema
        there = {SINGLE: largest_single(schema) is not None, MULTI: MULTIVECTOR in schema.names}
        return {kind for kind, is_there in there.items() if is_there}

    def search(self, question: Question) -> list[Hit]:
        """The nearest rows, the nearest first.

        Raises:
            SpecError: the snapshot has no such vectors.
        """
        allowed_N = self._allowed(question)
        if question.using == MULTI:
            rows, scores = self._by_maxsim(question, allowed_N)
        else:
            scores_N = np.where(allowed_N, self._cosines(question.vectors[0]), -np.inf)
            rows = nearest(scores_N, question.most)
            scores = scores_N[rows]
        return self._hits(rows, scores)

    def column(self, name: str) -> pa.ChunkedArray:
        """[N] a column of all rows, read once."""
        if name not in self._columns:
            schema = self._snapshot.schema
            pieces = [self._snapshot.read(Rows(part=p), [name])[name] for p in self._snapshot.parts]
            chunks = [chunk for piece in pieces for chunk in piece.chunks]
            self._columns[name] = pa.chunked_array(chunks, schema.field(name).type)
        return self._columns[name]

    def _payload(self, name: str) -> pa.ChunkedArray:
        """[N] a column as a store would have it."""
        if name not in self._payloads:
            self._payloads[name] = as_payload(self.column(name), self.types[name])
        return self._payloads[name]

    @cached_property
    def _vectors(self) -> list[NDArray[np.floating]]:
        """[V, D] the single vectors, file by file."""
        name = largest_single(self._snapshot.schema)
        if name is None:
            raise SpecError("the dataset has no single vectors; ask for its multi-vectors: --multi")
        size = self._snapshot.schema.field(name).type.list_size
        return [
            chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
            for table in self._files.values()
            for chunk in table[name].chunks
        ]

    def _cosines(self, query_D: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N] of each row."""
        scored = [
            block.astype(np.float32, copy=False) @ query_D.astype(np.float32)
            for block in self._vectors
        ]
        scores_V = np.concatenate([np.empty(0, np.float32), *scored])
        return scores_V if self._is_plain else scores_V[self._where]

    @cached_property
    def _is_plain(self) -> bool:
        """Whether rows and vectors are the same, in the same order."""
        return len(self._where) == sum(table.num_rows for table in self._files.values()) and bool(
            np.array_equal(self._where, np.arange(len(self._where)))
        )

    @cached_property
    def _where(self) -> NDArray[np.int64]:
        """[N] which of the V vectors each row has."""
        starts, at = {}, 0
        for path, table in self._files.items():
            starts[path], at = at, at + table.num_rows
        found = [np.empty(0, np.int64)]
        for part in self._snapshot.parts:
            origins = self._snapshot.origins(Rows(part=part))
            coded = origins[ORIGIN_FILE].unify_dictionaries().combine_chunks()
            begins = np.array([starts[path] for path in coded.dictionary.to_pylist()], np.int64)
            found.append(begins[coded.indices.to_numpy()] + origins[ORIGIN_ROW].to_numpy())
        return np.concatenate(found)

    def _allowed(self, question: Question) -> NDArray[np.bool_]:
        """[N] which rows may be found."""
        allowed = np.ones(self._snapshot.entry.rows, np.bool_)
        if question.condition is not None:
            columns = {name: self._payload(name) for name in columns_of(question.condition)}
            allowed &= matching(question.condition, columns)
        if question.among is not None:
            among = np.zeros_like(allowed)
            among[[self._row_of[point] for point in question.among if point in self._row_of]] = True
            allowed &= among
        return allowed

    def _by_maxsim(
        self, question: Question, allowed_N: NDArray[np.bool_]
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        if MULTIVECTOR not in vector_columns(self._snapshot.schema):
            raise SpecError("--multi: the dataset has no multi-vectors")
        rows = np.flatnonzero(allowed_N)
        vectors = self._where[rows]
        scores = np.full(len(rows), -np.inf, np.float32)
        start = 0
        for table in self._files.values():
            end = start + table.num_rows
            here = np.flatnonzero((vectors >= start) & (vectors < end))
            if len(here):
                column = table[MULTIVECTOR].take(pa.array(vectors[here] - start))
                scores[here] = maxsim_of(question.vectors, column)
            start = end
        best = nearest(scores, question.most)
        return rows[best], scores[best]

    def _hits(self, rows: NDArray[np.intp], scores: NDArray[np.floating]) -> list[Hit]:
        """Rows with what they carry."""
        taken = {name: self.column(name).take(pa.array(rows)) for name in self.types}
        table = pa.table(taken)
        table = table.add_column(0, POINT, point_ids(self._snapshot.dataset, table))
        found = hits_of(table, scores)
        self._row_of |= {hit.point: int(row) for hit, row in zip(found, rows, strict=True)}
        return found


def matching(condition: Condition, columns: Mapping[str, pa.ChunkedArray]) -> NDArray[np.bool_]:
    """[N] which rows fulfil a condition; null fulfils none.

    Args:
        condition: to be fulfilled, its constants of the types of its columns.
        columns: those that it asks for.
    """
    if isinstance(condition, Comparison):
        column = columns[condition.column]
        constant = pa.scalar(condition.value, column.type)
        return _true(_COMPARED[condition.operator](column, constant))
    if isinstance(condition, OneOf):
        column = columns[condition.column]
        found = pc.is_in(column, value_set=pa.array(condition.values, column.type))
        if condition.is_negated:
            found = pc.and_(pc.invert(found), pc.is_valid(column))
        return _true(found)
    parts = [matching(part, columns) for part in condition.parts]
    joined = np.logical_and if isinstance(condition, All) else np.logical_or
    found_N: NDArray[np.bool_] = joined.reduce(parts)
    return found_N


_COMPARED = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def _true(found: pa.ChunkedArray) -> NDArray[np.bool_]:
    well: NDArray[np.bool_] = pc.fill_null(found, False).to_numpy(zero_copy_only=False)
    return well


def _table(source: str | pa.Buffer) -> pa.Table:
    """A file, mapped or held; nothing is copied."""
    opened = pa.memory_map(source) if isinstance(source, str) else source
    with pa.ipc.open_file(opened) as file:
        return file.read_all()
