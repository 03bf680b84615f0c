"""The rows of a snapshot, file by file: what was written, less what is no more.

A row of a file of links has the vectors of a row in some data file. Those are fetched here, so that
whoever reads a snapshot sees rows alone.

    links: id, modality, task, kept columns, source_hash, vector_file, vector_row
"""

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.log import generation
from pipeline.manifest import LINKS, Part
from pipeline.schema import VECTOR_FILE, VECTOR_ROW, vector_columns
from pipeline.work import WrittenFile

_FILES_HELD = 2
_CONTENT = ("task", "source_hash")
"""What vectors are made from: a link has it of its own, and so has the row it names."""

Load = Callable[[str, Sequence[str]], pa.Table]
"""Reads columns of a whole file, given its path below the dataset's root."""


def links_schema(schema: pa.Schema) -> pa.Schema:
    """Of files of links in a dataset whose rows have that schema."""
    own = [field for field in schema if field.name not in borrowed(schema)]
    where = [
        pa.field(VECTOR_FILE, pa.dictionary(pa.int32(), pa.string())),
        pa.field(VECTOR_ROW, pa.int32()),
    ]
    return pa.schema([*own, *where])


def borrowed(schema: pa.Schema) -> tuple[str, ...]:
    """The columns that a link does not have of its own."""
    found = [name for name in ("n_tokens", "truncated") if name in schema.names]
    return (*found, *vector_columns(schema))


def put_table(
    folder: Folder, kind: str, fingerprint: str, unit: str, table: pa.Table
) -> WrittenFile:
    """Write a file of a unit, whole, under a name that no other attempt at the unit has."""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    data = memoryview(buffer.getvalue())
    path = f"{kind}/{generation(fingerprint)}/{unit}-{uuid.uuid4().hex}.arrow"
    folder.put(path, data)
    return WrittenFile(
        path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data), rows=table.num_rows
    )


def read_columns(folder: Folder, path: str, columns: Sequence[str]) -> pa.Table:
    """Columns of a file of a dataset, without a look at its sha256; no other is fetched.

    A file of a local disk is mapped: its bytes are read when they are looked at, and not copied.
    """
    where = folder.path(path)
    if folder.is_local:
        with pa.memory_map(where) as stream, pa.ipc.open_file(stream) as file:
            return file.read_all().select(list(columns))
    with folder.filesystem.open(where, "rb") as stream:
        with pa.ipc.open_file(stream) as file:
            chosen = [file.schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=sorted(chosen))
        with pa.ipc.open_file(stream, options=options) as file:
            return file.read_all().select(list(columns))


def read_file(folder: Folder, file: WrittenFile) -> pa.Table:
    """A file of a dataset, read whole and held against its sha256.

    Raises:
        OutputError: its bytes are not those that were written, or it is gone.
    """
    try:
        data = folder.get(file.path)
    except FileNotFoundError:
        raise OutputError(f"{folder.uri}/{file.path} is gone") from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise OutputError(f"{folder.uri}/{file.path} is damaged: its sha256 has changed")
    with pa.ipc.open_file(pa.py_buffer(data)) as opened:
        return opened.read_all()


@dataclass(kw_only=True)
class FragmentReader:
    """Reads parts of one snapshot."""

    schema: pa.Schema
    """Of its rows."""
    load: Load
    """Reads files."""
    _held: dict[str, pa.Table] = field(default_factory=dict)

    def rows(self, part: Part, columns: Sequence[str]) -> pa.Table:
        """The rows of a part of kind `data` or `links`.

        Args:
            part: of the snapshot.
            columns: of the schema, in the order wanted.
        """
        if part.kind != LINKS:
            return living(self.load(part.file.path, columns), part)
        lent = [name for name in columns if name in borrowed(self.schema)]
        own = [name for name in columns if name not in lent]
        where = [VECTOR_FILE, VECTOR_ROW] if lent else []
        links = living(self.load(part.file.path, [*own, *where]), part)
        if lent:
            vectors = self._vectors(links[VECTOR_FILE], links[VECTOR_ROW], lent)
            for name in lent:
                links = links.append_column(self.schema.field(name), vectors[name])
        return links.select(list(columns))

    def astray(self, part: Part, files: Mapping[str, int]) -> str | None:
        """What is wrong with the first link of a part that does not lead to its content.

        Args:
            part: of kind `links`.
            files: how many rows each data file of the snapshot has, by path.
        """
        links = living(self.load(part.file.path, [*_CONTENT, VECTOR_FILE, VECTOR_ROW]), part)
        named, rows = links[VECTOR_FILE].to_pylist(), links[VECTOR_ROW].to_pylist()
        for path, row in zip(named, rows, strict=True):
            if path not in files:
                return f"{part.file.path} links to {path}, which is no file of this version"
            if not 0 <= row < files[path]:
                return f"{part.file.path} links to row {row} of {path}, which has {files[path]}"
        there = self._vectors(links[VECTOR_FILE], links[VECTOR_ROW], _CONTENT)
        for path, row, own, lent in zip(
            named, rows, links.select(_CONTENT).to_pylist(), there.to_pylist(), strict=True
        ):
            if own != lent:
                return f"{part.file.path} links to row {row} of {path}, which has other content"
        return None

    def _vectors(
        self, files: pa.ChunkedArray, rows: pa.ChunkedArray, columns: Sequence[str]
    ) -> pa.Table:
        """The borrowed columns of links, in their order."""
        coded = pc.dictionary_encode(files.cast(pa.string())).combine_chunks()
        codes, numbers = coded.indices.to_numpy(), rows.to_numpy()
        by_file = np.argsort(codes, kind="stable")
        taken = [
            self._file(path, columns).take(pa.array(numbers[codes == code]))
            for code, path in enumerate(coded.dictionary.to_pylist())
        ]
        if not taken:
            return pa.schema([self.schema.field(name) for name in columns]).empty_table()
        back = np.empty(len(by_file), np.int64)
        back[by_file] = np.arange(len(by_file))
        return pa.concat_tables(taken).take(pa.array(back))

    def _file(self, path: str, columns: Sequence[str]) -> pa.Table:
        """The borrowed columns of a data file; links that are side by side often want the same."""
        if path not in self._held or not set(columns) <= set(self._held[path].column_names):
            while len(self._held) >= _FILES_HELD:
                self._held.pop(next(iter(self._held)))
            self._held[path] = self.load(path, columns)
        return self._held[path].select(list(columns))


def living_rows(part: Part) -> NDArray[np.bool_]:
    """Which rows of a part's file the snapshot holds, [rows of the file]."""
    living = np.ones(part.file.rows, np.bool_)
    living[list(part.dead)] = False
    return living


def living(table: pa.Table, part: Part) -> pa.Table:
    """Of the rows of a part's file those that the snapshot holds."""
    return table.filter(pa.array(living_rows(part))) if part.dead else table
