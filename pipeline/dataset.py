"""A committed Arrow dataset, as a reader sees it: one snapshot of those that the log names."""

import hashlib
import io
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.log import (
    DATA,
    FORMAT,
    QUARANTINE,
    Kind,
    LogEntry,
    demand_committed,
    read_condemned,
    read_entry,
    read_format,
    read_manifest,
    schema_of,
)
from pipeline.schema import quarantine_schema
from pipeline.work import Receipt, WrittenFile


class Dataset:
    """One snapshot, readable while later ones are committed."""

    def __init__(self, folder: Folder, entry: LogEntry, schema: pa.Schema) -> None:
        self._folder = folder
        self.entry = entry
        self._schema = schema
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
        """The data files, in the order they are read."""
        return self._files(DATA)

    @property
    def files(self) -> list[WrittenFile]:
        """All its files, those of the quarantine with them."""
        return [*self._files(DATA), *self._files(QUARANTINE)]

    def count(self) -> int:
        """How many embeddings it has; reads no data file."""
        return sum(fragment.rows for fragment in self.fragments)

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
        with self._blamed():
            return self._open(self.fragments, self._schema).to_table(
                columns=None if columns is None else list(columns), filter=filter
            )

    def to_batches(
        self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read it batch by batch, in bounded memory; the arguments are those of `to_table`."""
        with self._blamed():
            yield from self._open(self.fragments, self._schema).to_batches(
                columns=None if columns is None else list(columns), filter=filter
            )

    def head(self, rows: int) -> pa.Table:
        """The first rows, reading no more batches than they need.

        Raises:
            OutputError: a file is missing or damaged.
        """
        # not a scan cut short: the threads of one may outlive it and hang a Python file system
        taken: list[pa.Table] = []
        for fragment in self.fragments:
            if rows <= 0:
                break
            with (
                self._readable(fragment),
                self._folder.filesystem.open(self._folder.path(fragment.path), "rb") as stream,
                pa.ipc.open_file(stream) as file,
            ):
                for index in range(file.num_record_batches):
                    taken.append(pa.Table.from_batches([file.get_batch(index)]).slice(0, rows))
                    rows -= taken[-1].num_rows
        return pa.concat_tables(taken) if taken else self._schema.empty_table()

    def read_fragment(self, fragment: WrittenFile) -> pa.Table:
        """One file, read whole and checked against the manifest.

        Raises:
            OutputError: its bytes are not those that were committed, or it is gone.
        """
        return read_file(self._folder, fragment)

    def quarantine(self) -> pa.Table:
        """The rows that were not embedded, with their reasons.

        Raises:
            OutputError: a file is missing or damaged.
        """
        files = self._files(QUARANTINE)
        if not files:
            return quarantine_schema(self._schema.field("id").type).empty_table()
        with (
            self._readable(files[0]),
            pa.ipc.open_file(io.BytesIO(self._folder.get(files[0].path))) as first,
        ):
            return self._open(files, first.schema).to_table()

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

    def _files(self, kind: str) -> list[WrittenFile]:
        chosen = self._manifest.filter(pc.field("kind") == kind)
        columns = ["path", "sha256", "size", "rows"]
        return [WrittenFile(**row) for row in chosen.select(columns).to_pylist()]

    def _open(self, files: list[WrittenFile], schema: pa.Schema) -> pads.FileSystemDataset:
        return pads.FileSystemDataset.from_paths(
            [self._folder.path(file.path) for file in files],
            schema=schema,
            format=pads.IpcFileFormat(),
            filesystem=self._folder.arrow_filesystem(),
        )


def demand_there(folder: Folder, entry: LogEntry) -> None:
    """Refuse a snapshot of which a file is missing or cut; what is in them is not looked at.

    Raises:
        OutputError: names the file, the version and the way out.
    """
    manifest = read_manifest(folder, entry.manifest).select(["path", "size"]).to_pylist()
    places = {posixpath.dirname(file["path"]) for file in manifest}
    there = {f"{p}/{name}": size for p in places for name, size in folder.sizes(p).items()}
    for file in manifest:
        size = there.get(file["path"])
        if size != file["size"]:
            # a listing may be an old one
            with suppress(FileNotFoundError):
                size = len(folder.get(file["path"]))
        if size != file["size"]:
            what = "is gone" if size is None else f"has {size:,} bytes, not {file['size']:,}"
            raise OutputError(
                f"{folder.uri}/{file['path']}, a file of version {entry.version}, {what}; put it "
                f"back from a copy, or embed its rows again with `nightjar retry {folder.uri}`, "
                "which makes a new version"
            )


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
        OutputError: no dataset is there, it has no such version or has it no more, or it was
            written by a newer Nightjar.
    """
    folder = Folder(uri)
    newest = demand_committed(folder)
    described = read_format(folder)
    if described is None:
        raise OutputError(f"{uri!r} has a log and no {FORMAT}: it is not whole")
    named = newest.published if version is None else find_version(folder, newest, version)
    entry = newest if named == newest.version else read_entry(folder, named)
    if entry.kind is not Kind.SNAPSHOT:
        entry = read_entry(folder, entry.published)
    if version is not None and entry.manifest in read_condemned(folder, newest):
        raise OutputError(
            f"{uri!r}: version {version} was collected by `nightjar gc`; `nightjar versions {uri}` "
            "lists what is left"
        )
    return Dataset(folder, entry, schema_of(described))


def find_version(folder: Folder, newest: LogEntry, version: int | str) -> int:
    """The number of a version.

    Args:
        folder: the dataset's root.
        newest: entry of the log.
        version: a number, in digits or not, or a tag.

    Raises:
        OutputError: there is none of that number or tag.
    """
    if version in newest.tags:
        return newest.tags[str(version)]
    if not str(version).isdecimal():
        tags = ", ".join(newest.tags) or "none"
        raise OutputError(f"{folder.uri!r} has no tag {version!r}; its tags: {tags}")
    if not 1 <= int(version) <= newest.version:
        raise OutputError(f"{folder.uri!r} has no version {version}; it has 1 to {newest.version}")
    return int(version)
