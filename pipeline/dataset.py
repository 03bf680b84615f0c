"""A committed Arrow dataset, as a reader sees it.

    <root>/format.json          create-only: format version, dataset id, schema, fingerprint
           log/<20 digits>.json THE commit point: create-only, contiguous, never deleted
           manifests/<sha256>.parquet   content-addressed: one row for each file of a snapshot
           data/<fingerprint 8>/<unit>-<attempt>.arrow         immutable Arrow IPC
           quarantine/<fingerprint 8>/<unit>-<attempt>.arrow   rows that were not embedded

A snapshot is whole: an entry of the log names one manifest, the manifest names every file. Files
that no entry leads to are invisible, so a reader that meets a half-finished run sees the snapshot
before it, or none.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.schema import quarantine_schema
from pipeline.storage import Folder
from pipeline.work import WrittenFile

FORMAT_VERSION = 1
FORMAT = "format.json"
LOG = "log"
MANIFESTS = "manifests"
DATA = "data"
QUARANTINE = "quarantine"

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string()),
        pa.field("unit", pa.string()),
        pa.field("adapter", pa.string()),
        pa.field("path", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("rows", pa.int64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """One commit."""

    version: int
    """1 for the first, contiguous."""
    commit_id: str
    """Made up by the committer, to know its own entry again."""
    parent: int
    """The version it was prepared on; 0 for none."""
    kind: str
    """`snapshot`."""
    manifest: str
    """Path of the manifest below the root; its name is its sha256."""
    rows: int
    """Embeddings in it."""
    quarantined: int
    """Items set aside."""
    fingerprint: str
    """Of every embedding in it."""
    source_digest: str
    """Of the work units it was made from: the same source gives the same digest."""
    created_at: str
    """By the committer's clock, UTC; nothing is decided by it."""
    versions: dict[str, str]
    """Of the software that made it."""


class Dataset:
    """One snapshot, readable while later ones are committed."""

    def __init__(self, folder: Folder, entry: LogEntry, schema: pa.Schema) -> None:
        self._folder = folder
        self.entry = entry
        self._schema = schema
        self._manifest = _read_manifest(folder, entry)

    @property
    def uri(self) -> str:
        """Its root."""
        return self._folder.uri

    @property
    def version(self) -> int:
        """Number of the snapshot."""
        return self.entry.version

    @property
    def schema(self) -> pa.Schema:
        """Of the embeddings; its metadata holds dim, dtypes and fingerprint."""
        return self._schema

    @property
    def fragments(self) -> list[WrittenFile]:
        """The data files, in the order they are read."""
        return self._files(DATA)

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
        """
        return self._open(self.fragments, self._schema).to_table(
            columns=None if columns is None else list(columns), filter=filter
        )

    def to_batches(
        self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read it batch by batch, in bounded memory; the arguments are those of `to_table`."""
        scanned: Iterator[pa.RecordBatch] = self._open(self.fragments, self._schema).to_batches(
            columns=None if columns is None else list(columns), filter=filter
        )
        return scanned

    def head(self, rows: int) -> pa.Table:
        """The first rows, reading no more batches than they need."""
        # not a scan cut short: the threads of one may outlive it and hang a Python file system
        taken: list[pa.Table] = []
        for fragment in self.fragments:
            if rows <= 0:
                break
            with (
                self._folder.filesystem.open(self._folder.path(fragment.path), "rb") as stream,
                pa.ipc.open_file(stream) as file,
            ):
                for index in range(file.num_record_batches):
                    taken.append(pa.Table.from_batches([file.get_batch(index)]).slice(0, rows))
                    rows -= taken[-1].num_rows
        return pa.concat_tables(taken) if taken else self._schema.empty_table()

    def read_fragment(self, fragment: WrittenFile) -> pa.Table:
        """One data file, read whole and checked against the manifest.

        Raises:
            OutputError: its bytes are not those that were committed.
        """
        data = self._folder.get(fragment.path)
        if hashlib.sha256(data).hexdigest() != fragment.sha256:
            raise OutputError(f"{self.uri}/{fragment.path} is damaged: its sha256 has changed")
        with pa.ipc.open_file(pa.py_buffer(data)) as file:
            return file.read_all()

    def quarantine(self) -> pa.Table:
        """The rows that were not embedded, with their reasons."""
        files = self._files(QUARANTINE)
        if not files:
            return quarantine_schema(self._schema.field("id").type).empty_table()
        with pa.ipc.open_file(io.BytesIO(self._folder.get(files[0].path))) as first:
            return self._open(files, first.schema).to_table()

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


def open_dataset(uri: str, version: int | None = None) -> Dataset:
    """Open a committed dataset.

    Args:
        uri: its root, a path or an object-store URL.
        version: the snapshot; None for the newest.

    Raises:
        OutputError: no dataset is there, it has no such version, or it was written by a newer
            Nightjar.
    """
    folder = Folder(uri)
    versions = list_versions(folder)
    if not versions:
        raise OutputError(f"{uri!r} holds no committed dataset")
    if version is not None and version not in versions:
        raise OutputError(
            f"{uri!r} has no version {version}; it has {versions[0]} to {versions[-1]}"
        )
    described = read_format(folder)
    if described is None:
        raise OutputError(f"{uri!r} has a log and no {FORMAT}: it is not whole")
    entry = read_entry(folder, versions[-1] if version is None else version)
    return Dataset(folder, entry, schema_of(described))


def list_versions(folder: Folder) -> list[int]:
    """The committed versions, oldest first."""
    numbers = (name.removesuffix(".json") for name in folder.names(LOG))
    return [int(number) for number in numbers if number.isdecimal()]


def read_entry(folder: Folder, version: int) -> LogEntry:
    """One entry of the log.

    Raises:
        OutputError: its content is damaged.
        FileNotFoundError: there is none of that version.
    """
    try:
        return LogEntry(**json.loads(folder.get(entry_name(version))))
    except (ValueError, TypeError) as error:
        raise OutputError(f"{folder.uri}/{entry_name(version)} is damaged: {error}") from error


def entry_name(version: int) -> str:
    """Where an entry lies below the root."""
    return f"{LOG}/{version:020}.json"


def read_format(folder: Folder) -> dict[str, Any] | None:
    """The parsed format.json; None when there is none.

    Raises:
        OutputError: it was written by a newer Nightjar.
    """
    try:
        described: dict[str, Any] = json.loads(folder.get(FORMAT))
    except (FileNotFoundError, NotADirectoryError):
        return None
    if described["format_version"] > FORMAT_VERSION:
        raise OutputError(
            f"{folder.uri!r} has format version {described['format_version']}, this Nightjar reads "
            f"up to {FORMAT_VERSION}: install a newer one"
        )
    return described


def schema_of(described: dict[str, Any]) -> pa.Schema:
    """The embeddings' schema in a parsed format.json."""
    return pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(described["schema"])))


def _read_manifest(folder: Folder, entry: LogEntry) -> pa.Table:
    try:
        data = folder.get(entry.manifest)
    except FileNotFoundError:
        raise OutputError(f"{folder.uri}/{entry.manifest} is missing") from None
    wanted = entry.manifest.rpartition("/")[2].removesuffix(".parquet")
    if hashlib.sha256(data).hexdigest() != wanted:
        raise OutputError(f"{folder.uri}/{entry.manifest} is damaged: its sha256 is not its name")
    return pq.read_table(io.BytesIO(data))
