"""A committed Arrow dataset, as a reader sees it: one snapshot of those that the log names."""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.fragments import FragmentReader, living, read_columns, read_file
from pipeline.log import (
    FORMAT,
    Kind,
    LogEntry,
    demand_committed,
    read_condemned,
    read_entry,
    read_format,
)
from pipeline.manifest import DATA, LINKS, QUARANTINE, VECTORS, Manifest, Part, read_manifest
from pipeline.schema import quarantine_schema
from pipeline.versions import find_version, published_version
from pipeline.work import Receipt, WrittenFile


class Dataset:
    """One snapshot, readable while later ones are committed."""

    def __init__(self, folder: Folder, entry: LogEntry) -> None:
        self._folder = folder
        self.entry = entry
        self._schema = entry.row_schema
        self._manifest = read_manifest(folder, entry.manifest)

    @property
    def uri(self) -> str:
        """Its root."""
        return self._folder.uri

    @property
    def version(self) -> int:
        """That made the snapshot."""
        return self.entry.snapshot

    @property
    def schema(self) -> pa.Schema:
        """Of the embeddings; its metadata holds dim, dtypes and fingerprint."""
        return self._schema

    @property
    def fragments(self) -> list[WrittenFile]:
        """The files that have its rows, in the order they are read."""
        return [part.file for part in self._rows]

    @property
    def files(self) -> list[WrittenFile]:
        """All its files, those of the quarantine and those that lend vectors with them."""
        return [part.file for part in self._manifest.parts()]

    def count(self) -> int:
        """How many embeddings it has; reads no data file."""
        return self._manifest.rows

    def count_quarantined(self) -> int:
        """How many items were set aside; reads no file."""
        return self._manifest.quarantined

    def to_table(
        self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> pa.Table:
        """Read it whole.

        Args:
            columns: those to read; None for all.
            filter: rows to keep, a pyarrow expression.

        Raises:
            OutputError: a file is missing or cut.
        """
        batches = list(self.to_batches(columns, filter))
        names = self._schema.names if columns is None else columns
        return pa.Table.from_batches(batches, pa.schema([self._schema.field(n) for n in names]))

    def to_batches(
        self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read it batch by batch, in bounded memory; the arguments are those of `to_table`."""
        with self._blamed():
            for is_plain, parts in groupby(self._rows, key=_is_plain):
                if is_plain:
                    files = [part.file for part in parts]
                    yield from self._open(files).to_batches(
                        columns=None if columns is None else list(columns), filter=filter
                    )
                    continue
                reader = FragmentReader(schema=self._schema, load=self._load)
                names = self._schema.names if columns is None else list(columns)
                for part in parts:
                    # a filter may ask for columns that are not wanted
                    table = reader.rows(part, names if filter is None else self._schema.names)
                    kept = table if filter is None else table.filter(filter)
                    yield from kept.select(names).to_batches()

    def head(self, rows: int) -> pa.Table:
        """The first rows, reading no more files than they need.

        Raises:
            OutputError: a file is missing or damaged.
        """
        # not a scan cut short: the threads of one may outlive it and hang a Python file system
        reader = FragmentReader(schema=self._schema, load=self._load)
        taken = [self._schema.empty_table()]
        for part in self._rows:
            if rows <= 0:
                break
            with self._readable(part.file):
                taken.append(reader.rows(part, self._schema.names).slice(0, rows))
            rows -= taken[-1].num_rows
        return pa.concat_tables(taken)

    def read_rows(self) -> Iterator[pa.Table]:
        """All rows, file by file, of files whose bytes are those that were committed.

        Raises:
            OutputError: its bytes are not those that were committed, or it is gone.
        """
        by_path = {part.file.path: part.file for part in self._manifest.parts()}
        reader = FragmentReader(
            schema=self._schema,
            load=lambda path, columns: self.read_fragment(by_path[path]).select(list(columns)),
        )
        return (reader.rows(part, self._schema.names) for part in self._rows)

    def read_fragment(self, fragment: WrittenFile) -> pa.Table:
        """One file, read whole and checked against the manifest.

        Raises:
            OutputError: its bytes are not those that were committed, or it is gone.
        """
        return read_file(self._folder, fragment)

    def astray(self) -> list[str]:
        """Of each file of links that do not all lead to their content, what is wrong.

        The files are taken to be those that were committed.
        """
        parts = self._manifest.parts(DATA, VECTORS)
        files = {part.file.path: part.file.rows for part in parts}
        reader = FragmentReader(schema=self._schema, load=self._load)
        found = (reader.astray(part, files) for part in self._manifest.parts(LINKS))
        return [sentence for sentence in found if sentence is not None]

    def quarantine(self) -> pa.Table:
        """The rows that were not embedded, with their reasons.

        Raises:
            OutputError: a file is missing or damaged.
        """
        taken = [quarantine_schema(self._schema.field("id").type).empty_table()]
        for part in self._manifest.parts(QUARANTINE):
            with self._readable(part.file):
                rows = self._load(part.file.path, taken[0].column_names)
                taken.append(living(rows, part))
        return pa.concat_tables(taken)

    @cached_property
    def _rows(self) -> list[Part]:
        return self._manifest.parts(DATA, LINKS)

    def _load(self, path: str, columns: Sequence[str]) -> pa.Table:
        return read_columns(self._folder, path, columns)

    @contextmanager
    def _readable(self, file: WrittenFile) -> Iterator[None]:
        """Say in a sentence that a file, or one after it, cannot be read."""
        try:
            with self._blamed():
                yield
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise OutputError(
                f"{self.uri}/{file.path}, or a file after it, cannot be read: {reason}; "
                "`nightjar verify` tells which are damaged"
            ) from error

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Blame a file that is missing or cut, if one is, for what went wrong in reading."""
        try:
            yield
        except (pa.ArrowException, OSError):
            demand_there(self._folder, self.entry)
            raise

    def _open(self, files: Sequence[WrittenFile]) -> pads.FileSystemDataset:
        return pads.FileSystemDataset.from_paths(
            [self._folder.path(file.path) for file in files],
            schema=self._schema,
            format=pads.IpcFileFormat(),
            filesystem=self._folder.arrow_filesystem(),
        )


def _is_plain(part: Part) -> bool:
    """Whether the rows of a part are those of its file."""
    return part.kind == DATA and not part.dead


def demand_there(folder: Folder, entry: LogEntry) -> None:
    """Refuse a snapshot of which a file is missing or cut; what is in them is not looked at.

    Raises:
        OutputError: names the file, the version and the way out.
    """
    for path, what in lost_files(folder, read_manifest(folder, entry.manifest)).items():
        raise OutputError(
            f"{folder.uri}/{path}, a file of version {entry.snapshot}, {what}; put it "
            f"back from a copy, or embed its rows again with `nightjar retry {folder.uri}`, "
            "which makes a new version"
        )


def lost_files(folder: Folder, manifest: Manifest) -> dict[str, str]:
    """Of each file of a snapshot that is missing or cut, by path, which of the two."""
    committed = manifest.sizes
    places = {posixpath.dirname(path) for path in committed}
    there = {f"{p}/{name}": size for p in places for name, size in folder.sizes(p).items()}
    lost: dict[str, str] = {}
    for path, wanted in committed.items():
        size = there.get(path)
        if size != wanted:
            # a listing may be an old one
            with suppress(FileNotFoundError):
                size = len(folder.get(path))
        if size != wanted:
            lost[path] = "is gone" if size is None else f"has {size:,} bytes, not {wanted:,}"
    return lost


def read_quarantine(folder: Folder, receipts: Iterable[Receipt]) -> Iterator[dict[str, Any]]:
    """The items that some units set aside, committed or not, with their reasons."""
    for receipt in receipts:
        if receipt.quarantine is not None:
            yield from read_file(folder, receipt.quarantine).to_pylist()


def open_dataset(uri: str, version: int | str | None = None) -> Dataset:
    """Open a committed dataset.

    Args:
        uri: its root, a path or an object-store URL.
        version: a number or a tag; None for the snapshot that is published.

    Raises:
        OutputError: no dataset is there, it has no such version or has it no more, nothing is
            published yet, or it was written by a newer Nightjar.
    """
    folder = Folder(uri)
    newest = demand_committed(folder)
    if read_format(folder) is None:
        raise OutputError(f"{uri!r} has a log and no {FORMAT}: it is not whole")
    if version is None:
        named = published_version(folder, newest)
    else:
        named = find_version(folder, newest, version)
    entry = newest if named == newest.version else read_entry(folder, named)
    if entry.kind is not Kind.SNAPSHOT:
        entry = read_entry(folder, published_version(folder, entry))
    if version is not None and entry.manifest in read_condemned(folder, newest):
        raise OutputError(
            f"{uri!r}: version {version} was collected by `nightjar gc`; `nightjar versions {uri}` "
            "lists what is left"
        )
    return Dataset(folder, entry)
