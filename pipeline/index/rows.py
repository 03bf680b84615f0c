"""Rows of a snapshot, each with the place where its vectors lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.dataset import Dataset
from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.fragments import FragmentReader, living, living_rows, read_columns
from pipeline.index.layout import MULTI, SINGLE, Layout
from pipeline.index.points import ORIGIN_FILE, ORIGIN_ROW, point_ids, points_of
from pipeline.log import LogEntry, read_format
from pipeline.manifest import DATA, LINKS, Part, read_manifest
from pipeline.schema import VECTOR_FILE, VECTOR_ROW, largest_single
from pipeline.storage import absolute

_FILES = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of a part of a snapshot."""

    part: Part
    """Of kind `data` or `links`."""
    at: NDArray[np.int64] | None = None
    """Their numbers in the part's file, ascending; None for all that the snapshot holds."""

    @property
    def count(self) -> int:
        """How many."""
        return self.part.rows if self.at is None else len(self.at)

    def numbers(self) -> NDArray[np.int64]:
        """Their numbers in the part's file."""
        return np.flatnonzero(living_rows(self.part)) if self.at is None else self.at


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot, to be read by rows."""

    uri: str
    """The dataset's root."""
    entry: LogEntry
    """That made it."""

    @classmethod
    def of(cls, dataset: Dataset) -> "Snapshot":
        """The snapshot that a dataset was opened at."""
        return cls(uri=absolute(dataset.uri), entry=dataset.entry)

    @property
    def folder(self) -> Folder:
        """The dataset's root; made anew in every process, since what it holds has secrets."""
        return Folder(self.uri)

    @property
    def version(self) -> int:
        """Its number."""
        return self.entry.snapshot

    @cached_property
    def schema(self) -> pa.Schema:
        """Of its rows."""
        return self.entry.row_schema

    @cached_property
    def parts(self) -> list[Part]:
        """Its rows, file by file, in the order they are read."""
        return read_manifest(self.folder, self.entry.manifest).parts(DATA, LINKS)

    @cached_property
    def dataset(self) -> str:
        """The id of the dataset."""
        described = read_format(self.folder)
        if described is None:
            raise OutputError(f"{self.folder.uri!r} has a log and no format.json: it is not whole")
        return str(described["dataset_id"])

    def read(self, rows: Rows, columns: Sequence[str]) -> pa.Table:
        """Columns of some rows."""
        reader = FragmentReader(schema=self.schema, load=self._load)
        return _chosen(reader.rows(rows.part, columns), rows)

    def origins(self, rows: Rows) -> pa.Table:
        """`ORIGIN_FILE` and `ORIGIN_ROW` of some rows: where their vectors lie."""
        part = rows.part
        if part.kind == LINKS:
            links = living(self._load(part.file.path, [VECTOR_FILE, VECTOR_ROW]), part)
            files, numbers = links[VECTOR_FILE].cast(_FILES), links[VECTOR_ROW]
        else:
            there = np.flatnonzero(living_rows(part)).astype(np.int32)
            alone = pa.DictionaryArray.from_arrays(np.zeros_like(there), [part.file.path])
            files, numbers = pa.chunked_array([alone]), pa.chunked_array([there])
        return _chosen(pa.table({ORIGIN_FILE: files, ORIGIN_ROW: numbers}), rows)

    def _load(self, path: str, columns: Sequence[str]) -> pa.Table:
        return read_columns(self.folder, path, columns)

    def points(self, rows: Sequence[Rows], layout: Layout, run: int, most: int | None) -> "Points":
        """Some rows, of at least one part, as points: see `points_of`."""
        columns = {SINGLE: largest_single(self.schema), MULTI: "multivector"}
        vectors = {str(columns[name]): name for name in layout.vectors}
        wanted = [*(name for name, _ in layout.payload), *vectors]
        table = pa.concat_tables(
            with_origins(self.read(some, wanted), self.origins(some)) for some in rows
        )
        ids = point_ids(self.dataset, table)
        named = table.rename_columns([vectors.get(name, name) for name in table.column_names])
        shortened = 0
        if most is not None and layout.multi is not None:
            shortened = pc.sum(pc.greater(pc.list_value_length(named[MULTI]), most)).as_py() or 0
        return Points(table=points_of(named, ids, layout, run, most), shortened=shortened)


def with_origins(rows: pa.Table, origins: pa.Table) -> pa.Table:
    """Rows, and where their vectors lie."""
    for name in (ORIGIN_FILE, ORIGIN_ROW):
        rows = rows.append_column(name, origins[name])
    return rows


def _chosen(living_ones: pa.Table, rows: Rows) -> pa.Table:
    """Of the living rows of a part those that are meant."""
    if rows.at is None:
        return living_ones
    there = np.flatnonzero(living_rows(rows.part))
    return living_ones.take(pa.array(np.searchsorted(there, rows.at)))


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points of some rows."""

    table: pa.Table
    """Of the layout's schema."""
    shortened: int
    """Documents that were pooled or split, because they have too many vectors."""
