"""The manifest: all that a snapshot holds, one row for each file and for each shard it came from.

A data file is written once and referred to for as long as one of its rows is wanted. What becomes
of its rows later is said here, not there: `dead` lists the rows that are no more, and a file of
links gives rows of its own, each with the vectors of a row in some data file. So a row that is
deleted, one whose kept columns change, and one that has the content of another cost no vector. A
data file of which links refer to rows, and no row of its own is left, is kept as `vectors`.

A shard is recorded with its etag: while that stays, none of it needs to be opened to know that all
its rows are as they were.
"""

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.log import (
    MANIFESTS,
    Kind,
    LogEntry,
    content_name,
    read_condemned,
    read_entry,
    read_named,
)
from pipeline.work import Receipt, WrittenFile, demand_below, shard_state

DATA = "data"
LINKS = "links"
VECTORS = "vectors"
QUARANTINE = "quarantine"
FOLDERS = (DATA, LINKS, QUARANTINE)
"""Of the files that a manifest names."""
INSPECTIONS = "inspections"
"""Of what planning learned of shards; the names begin with `Shard.state`."""
_SHARD = "shard"
_FILE = ("path", "sha256", "size", "rows")
_FOLDER_OF = {DATA: DATA, LINKS: LINKS, VECTORS: DATA, QUARANTINE: QUARANTINE}

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("unit", pa.string()),
        pa.field("adapter", pa.string()),
        pa.field("path", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("rows", pa.int64()),
        pa.field("dead", pa.list_(pa.int32())),
        pa.field("refers", pa.list_(pa.string())),
        pa.field("uri", pa.string()),
        pa.field("etag", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file of a snapshot, and what of it the snapshot holds."""

    kind: str
    """`data`, `links`, `vectors` or `quarantine`."""
    shard: str
    """Key of the shard its rows are of; "" for `vectors`."""
    unit: str
    """The unit that wrote it."""
    adapter: str
    """Who embedded it."""
    file: WrittenFile
    """Where it is."""
    dead: tuple[int, ...] = ()
    """Its rows that are no more, ascending."""
    refers: tuple[str, ...] = ()
    """Of links: paths of the data files that hold their vectors."""

    @property
    def rows(self) -> int:
        """How many of its rows the snapshot holds."""
        return 0 if self.kind == VECTORS else self.file.rows - len(self.dead)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """An object of the source, as a snapshot was made from it."""

    key: str
    """Names it, and how it is read."""
    uri: str
    """Where it is."""
    size: int
    """In bytes."""
    etag: str
    """As the store told it."""
    rows: int
    """Source rows."""

    @property
    def state(self) -> str:
        """Names it as it was then."""
        return shard_state(self.key, self.size, self.etag)


class Manifest:
    """What a snapshot holds."""

    def __init__(self, table: pa.Table) -> None:
        """Take a table of `MANIFEST_SCHEMA`."""
        self.table = table

    @classmethod
    def of(cls, shards: Iterable[Shard], parts: Iterable[Part]) -> Self:
        """The manifest of these, in this order."""
        rows: list[dict[str, Any]] = [
            {
                "kind": _SHARD,
                "shard": shard.key,
                "uri": shard.uri,
                "size": shard.size,
                "etag": shard.etag,
                "rows": shard.rows,
            }
            for shard in shards
        ]
        rows += [
            {
                "kind": part.kind,
                "shard": part.shard,
                "unit": part.unit,
                "adapter": part.adapter,
                **asdict(part.file),
                "dead": part.dead or None,
                "refers": part.refers or None,
            }
            for part in parts
        ]
        return cls(pa.Table.from_pylist(rows, MANIFEST_SCHEMA))

    @property
    def shards(self) -> list[Shard]:
        """All shards."""
        columns = {"shard": "key", "uri": "uri", "size": "size", "etag": "etag", "rows": "rows"}
        chosen = self.table.filter(pc.field("kind") == _SHARD).select(list(columns))
        return [Shard(**row) for row in chosen.rename_columns(list(columns.values())).to_pylist()]

    def parts(self, *kinds: str) -> list[Part]:
        """The parts of some kinds, in order; of all kinds when none is named."""
        wanted = pa.array(kinds or tuple(_FOLDER_OF))
        return [
            Part(
                kind=row["kind"],
                shard=row["shard"],
                unit=row["unit"],
                adapter=row["adapter"],
                file=WrittenFile(**{name: row[name] for name in _FILE}),
                dead=tuple(row["dead"] or ()),
                refers=tuple(row["refers"] or ()),
            )
            for row in self.table.filter(pc.is_in(pc.field("kind"), wanted)).to_pylist()
        ]

    @property
    def rows(self) -> int:
        """How many embeddings it holds."""
        return self._count(DATA, LINKS)

    @property
    def quarantined(self) -> int:
        """How many items it holds that were set aside."""
        return self._count(QUARANTINE)

    def _count(self, *kinds: str) -> int:
        chosen = self.table.filter(pc.is_in(pc.field("kind"), pa.array(kinds)))
        dead = pc.sum(pc.list_value_length(chosen["dead"])).as_py() or 0
        return (pc.sum(chosen["rows"]).as_py() or 0) - dead

    @property
    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file, by path."""
        files = self.table.filter(pc.field("kind") != _SHARD)
        return dict(zip(*(files[name].to_pylist() for name in ("path", "size")), strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and bool(self.table.equals(other.table))

    __hash__ = None  # type: ignore[assignment]


def parts_of(shard: str, receipt: Receipt) -> list[Part]:
    """What a unit of a shard has written, as parts of a snapshot."""
    files = {DATA: receipt.data, LINKS: receipt.links, QUARANTINE: receipt.quarantine}
    return [
        Part(
            kind=kind,
            shard=shard,
            unit=receipt.unit,
            adapter=receipt.adapter,
            file=file,
            refers=receipt.refers if kind == LINKS else (),
        )
        for kind, file in files.items()
        if file is not None
    ]


def lenders(parts: Sequence[Part], known: Mapping[str, Part]) -> list[Part]:
    """The data files that links of some parts refer to and that are none of the parts.

    Args:
        parts: of a snapshot.
        known: data files by path.
    """
    there = {part.file.path for part in parts}
    lent = dict.fromkeys(path for part in parts for path in part.refers if path not in there)
    return [replace(known[path], kind=VECTORS, shard="", dead=()) for path in lent]


def read_manifest(folder: Folder, name: str) -> Manifest:
    """The manifest of that path.

    Raises:
        OutputError: it is missing or damaged, or names files elsewhere.
    """
    data = read_named(folder, MANIFESTS, name, "parquet")
    try:
        table = pq.read_table(io.BytesIO(data))
        if not table.schema.equals(MANIFEST_SCHEMA):
            raise ValueError("its columns are not those of a manifest")
        files = table.filter(pc.field("kind") != _SHARD).select(["kind", "path", "rows", "dead"])
        for row in files.to_pylist():
            if row["kind"] not in _FOLDER_OF:
                raise ValueError(f"it names a file of the unknown kind {row['kind']!r}")
            demand_below(_FOLDER_OF[row["kind"]], row["path"])
            if row["dead"] and not 0 <= row["dead"][0] <= row["dead"][-1] < row["rows"]:
                raise ValueError(f"it names dead rows that {row['path']} does not have")
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise OutputError(f"{folder.uri}/{name} cannot be trusted: {error}") from error
    return Manifest(table)


def read_void(folder: Folder, newest: LogEntry | None) -> frozenset[str]:
    """Paths of the files that no later snapshot may use: those that were condemned, and those of
    snapshots that were rolled back, unless they are of another as well.

    Raises:
        OutputError: a list or a manifest is missing or damaged.
    """
    condemned = read_condemned(folder, newest)
    if newest is None or not newest.withheld:
        return condemned
    doubted: set[str] = set()
    trusted: set[str] = set()
    for version in range(1, newest.version + 1):
        entry = read_entry(folder, version)
        if entry.kind is Kind.SNAPSHOT and entry.manifest not in condemned:
            files = read_manifest(folder, entry.manifest).sizes.keys()
            (doubted if version in newest.withheld else trusted).update(files)
    return condemned | (doubted - trusted)


def put_manifest(folder: Folder, manifest: Manifest, condemned: Collection[str]) -> str:
    """Put a manifest under the name of its content; the name.

    A name that is condemned may be deleted at any moment, so the same state has another one when it
    comes again.
    """
    for edition in count():
        buffer = io.BytesIO()
        marked = {"edition": str(edition)} if edition else None
        pq.write_table(manifest.table.replace_schema_metadata(marked), buffer, compression="zstd")
        name = content_name(MANIFESTS, buffer.getvalue(), "parquet")
        if name not in condemned:
            folder.put(name, buffer.getvalue())
            break
    return name
