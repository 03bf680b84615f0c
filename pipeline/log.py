"""The root of a dataset: the log of commits, and what its entries lead to.

    <root>/format.json          create-only: format version, dataset id
           log/<20 digits>.json THE commit point: create-only, contiguous, sealed, never deleted
           manifests/<sha256>.parquet   content-addressed: what a snapshot holds: `manifest`
           data/<fingerprint 8>/<unit>-<attempt>.arrow         immutable Arrow IPC
           links/<fingerprint 8>/<unit>-<attempt>.arrow        rows with vectors of other rows
           quarantine/<fingerprint 8>/<unit>-<attempt>.arrow   rows that were not embedded
           work/<fingerprint 8>/<unit>.<revision>.json         which attempt counts: `records`
           inspections/<shard>  what planning learned of a shard: `shards.remembered`
           job.json             what the last run was asked to do: `job_file`
           condemned/<sha256>.json      content-addressed: files that may be deleted: `garbage`

A snapshot is whole: an entry of the log names one manifest, the manifest names every file. Files
that no entry leads to are invisible, so a reader that meets a half-finished run sees the snapshot
before it, or none.

An entry is the whole state of the dataset: the snapshot that was made last, the one that readers
get, the versions that have a name, the files that may be deleted. So there is one order in which
everything happens, and whoever decides by one state and writes the next is told when another was
faster.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.sealed import seal, unseal
from pipeline.work import demand_below

FORMAT_VERSION = 1
FORMAT = "format.json"
LOG = "log"
MANIFESTS = "manifests"
CONDEMNED = "condemned"
_ENTRIES_AT_ONCE = 32
"""How many are read at a time: they are small, and the wait is all that they cost."""
JOB = "job.json"


class Kind(StrEnum):
    """What an entry of the log changed; it repeats the rest of the state before it."""

    SNAPSHOT = "snapshot"
    """There is one more snapshot; readers get it, or it is a candidate until it is published."""
    PUBLISH = "publish"
    """Readers get another snapshot."""
    ROLLBACK = "rollback"
    """Readers get an earlier snapshot again."""
    TAG = "tag"
    """A version has a name, or has it no more."""
    GC = "gc"
    """Files are condemned."""


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """One commit."""

    version: int
    """1 for the first, contiguous."""
    commit_id: str
    """Made up by the committer, to know its own entry again."""
    parent: int
    """The version it was prepared on; 0 for none."""
    kind: Kind
    """What it changed."""
    snapshot: int
    """The version that made the snapshot described here: this one, or the last that made one."""
    published: int
    """The version whose snapshot readers get; 0 for none."""
    manifest: str
    """Path of the manifest below the root; its name is its sha256."""
    rows: int
    """Embeddings in it."""
    quarantined: int
    """Items set aside."""
    fingerprint: str
    """Of every embedding in it."""
    schema: str
    """Of its rows, serialised by Arrow, in hexadecimal digits."""
    source_digest: str
    """Of the work units it was made from: the same source gives the same digest."""
    created_at: str
    """By the committer's clock, UTC; nothing is decided by it."""
    versions: dict[str, str]
    """Of the software that made it."""
    tags: dict[str, int] = field(default_factory=dict)
    """Versions that have a name, and are kept for as long as they have it."""
    candidate: bool = False
    """Whether readers have never had the snapshot described here."""
    refused: list[str] = field(default_factory=list)
    """Why the gate did not give readers the snapshot described here, a sentence each."""
    quality: dict[str, float | str] = field(default_factory=dict)
    """How well queries find their documents in it, from `nightly.quality`; empty for not asked."""
    withheld: list[int] = field(default_factory=list)
    """Versions that were rolled back: what they added is not used for later ones."""
    condemned: str | None = None
    """Path of the list of files that may be deleted at any moment; None for none."""

    @property
    def is_refused(self) -> bool:
        """Whether readers have never had the snapshot described here because of the gate."""
        return self.candidate and bool(self.refused)

    @property
    def row_schema(self) -> pa.Schema:
        """Of the rows."""
        return pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(self.schema)))

    def to_json(self) -> str:
        """As one JSON object, with a sum that `parse_entry` checks."""
        return seal(asdict(self), indent=1)


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
    return parse_entry(folder, version, folder.get(entry_name(version)))


def parse_entry(folder: Folder, version: int, data: bytes) -> LogEntry:
    """The entry of these bytes.

    Raises:
        OutputError: they are damaged.
    """
    try:
        plain = unseal(data)
        entry = LogEntry(**plain | {"kind": Kind(plain["kind"])})
        if not entry.row_schema.names:
            raise ValueError("it describes no columns")
    except (ValueError, TypeError, KeyError, OSError, pa.ArrowException) as error:
        raise OutputError(f"{folder.uri}/{entry_name(version)} is damaged: {error}") from error
    return entry


def read_log(folder: Folder) -> list[LogEntry]:
    """All entries, oldest first.

    Raises:
        OutputError: nothing has been committed there, or an entry is damaged.
    """
    with ThreadPoolExecutor(_ENTRIES_AT_ONCE) as pool:
        found = list(pool.map(lambda version: read_entry(folder, version), list_versions(folder)))
    if not found:
        raise _nothing_committed(folder)
    return found


def newest_entry(folder: Folder) -> LogEntry | None:
    """The newest entry of the log; None when nothing has been committed."""
    versions = list_versions(folder)
    return read_entry(folder, versions[-1]) if versions else None


def demand_committed(folder: Folder) -> LogEntry:
    """The newest entry of the log.

    Raises:
        OutputError: nothing has been committed there.
    """
    newest = newest_entry(folder)
    if newest is None:
        raise _nothing_committed(folder)
    return newest


def _nothing_committed(folder: Folder) -> OutputError:
    return OutputError(f"{folder.uri!r} holds no committed dataset")


def read_condemned(folder: Folder, entry: LogEntry | None) -> frozenset[str]:
    """Paths of the files that may be deleted at any moment, as of an entry.

    Raises:
        OutputError: the list is missing or damaged.
    """
    if entry is None or entry.condemned is None:
        return frozenset()
    return frozenset(json.loads(read_named(folder, CONDEMNED, entry.condemned, "json")))


def content_name(kind: str, data: bytes, suffix: str) -> str:
    """Where an object that is named by its content lies below the root."""
    return f"{kind}/{hashlib.sha256(data).hexdigest()}.{suffix}"


def generation(fingerprint: str) -> str:
    """The folder, in each kind of file, of what was made in one way."""
    return fingerprint[:8]


def entry_name(version: int) -> str:
    """Where an entry lies below the root."""
    return f"{LOG}/{version:020}.json"


def read_format(folder: Folder) -> dict[str, Any] | None:
    """The parsed format.json; None when there is none.

    Raises:
        OutputError: it is damaged, or was written by a newer Nightjar.
    """
    try:
        data = folder.get(FORMAT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        described: dict[str, Any] = json.loads(data)
        version = int(described["format_version"])
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"{folder.uri}/{FORMAT} is damaged ({type(error).__name__}: {error}); put it back from "
            "a copy, or embed again to another output.uri"
        ) from error
    if version > FORMAT_VERSION:
        raise OutputError(
            f"{folder.uri!r} has format version {version}, this Nightjar reads up to "
            f"{FORMAT_VERSION}: install a newer one"
        )
    return described


def read_named(folder: Folder, kind: str, name: str, suffix: str) -> bytes:
    """An object that is named by its content.

    Raises:
        OutputError: it is missing or damaged.
    """
    try:
        demand_below(kind, name)
        data = folder.get(name)
    except FileNotFoundError:
        raise OutputError(f"{folder.uri}/{name} is missing") from None
    except ValueError as error:
        raise OutputError(f"the log of {folder.uri!r} cannot be trusted: {error}") from error
    if content_name(kind, data, suffix) != name:
        raise OutputError(f"{folder.uri}/{name} is damaged: its sha256 is not its name")
    return data
