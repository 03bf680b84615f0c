"""A unit of work, and the receipt for it.

A segment is a run of rows of one shard that is opened once: row groups of a Parquet file, a byte
range of a tar or JSONL shard, some files of an image folder. A unit is the rows of one segment
that go to one adapter, or a slice of them; it is one block, one call of an actor and one file.
Receipts come back from the writers; the driver commits nothing else.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from pipeline.sealed import seal, unseal
from pipeline.storage import StoredObject

_PLAIN_PATH = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)+", re.ASCII)
"""Of every file that is named in a record, a manifest or the log: no part begins with a dot."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Rows that are opened together."""

    source: int
    """Which source of the spec."""
    shard: StoredObject
    """The shard; for an image folder, the first of the files."""
    first_row: int
    """Number of its first row in the shard."""
    rows: int
    """How many rows it has, for all adapters."""
    row_groups: tuple[int, ...] = ()
    """Parquet: which row groups."""
    span: tuple[int, int] = (0, 0)
    """Tar and JSONL: first byte, and the byte after the last."""
    files: tuple[StoredObject, ...] = ()
    """Image folder: which files."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Of a row, what one embedding is of."""

    row: int
    """Number of the row in its shard."""
    modality: str | None
    """`text` or `image`; None for a row that asks for no embedding, because it is faulty."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """An item whose vectors are there already."""

    item: Item
    """The item."""
    content: str
    """Its task and content, hashed: `contents.content_key` in hexadecimal digits."""
    path: str
    """Of the data file that holds the vectors."""
    at: int
    """Number of the row in that file."""


@dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """Rows that are embedded, or linked to vectors that are there, and written together."""

    shard: str
    """Key of the shard they are of."""
    segment: Segment
    """Where they are."""
    reading: str
    """How its rows are read: the source's columns and task, as text."""
    adapter: str
    """Who embeds them."""
    start: int
    """First row, counted among the segment's rows of that adapter."""
    stop: int
    """The row after the last, counted likewise."""
    only: tuple[Item, ...] | None = None
    """Of these rows, the items to be embedded; None for all."""
    links: tuple[Link, ...] | None = None
    """The items to be linked; nothing is embedded then. None for a unit that is embedded."""

    @property
    def rows(self) -> int:
        """How many source rows it has."""
        items = self.items
        return self.stop - self.start if items is None else len({item.row for item in items})

    @property
    def items(self) -> tuple[Item, ...] | None:
        """The items it is confined to; None for all of its rows."""
        return self.only if self.links is None else tuple(link.item for link in self.links)

    def key(self, fingerprint: str) -> str:
        """Names the work: the same rows of the same object, read and embedded the same way."""
        parts = {"unit": asdict(self), "fingerprint": fingerprint}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """An immutable file of the dataset."""

    path: str
    """Below the dataset's root."""
    sha256: str
    """Of its bytes."""
    size: int
    """In bytes."""
    rows: int
    """Rows in it."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of a unit."""

    unit: str
    """Its key."""
    adapter: str
    """Who embedded it."""
    rows: int
    """Source rows it had."""
    items: int
    """Embeddings those rows asked for: two for a row with a text and an image."""
    embedded: dict[str, int]
    """Embeddings written, by modality."""
    quarantined: dict[str, int]
    """Items set aside, by reason."""
    tokens: int
    """Tokens embedded."""
    data: WrittenFile | None
    """The embeddings; None when every row was quarantined."""
    quarantine: WrittenFile | None
    """The rows set aside; None when there are none."""
    linked: dict[str, int] = field(default_factory=dict)
    """Items that have vectors of other rows, by modality."""
    links: WrittenFile | None = None
    """Those items; None when there are none."""
    refers: tuple[str, ...] = ()
    """Paths of the data files that hold their vectors."""

    @property
    def files(self) -> tuple[WrittenFile, ...]:
        """What was written: one file, or two."""
        return tuple(f for f in (self.data, self.links, self.quarantine) if f is not None)

    def to_json(self) -> str:
        """As one JSON object, with a sum that `from_json` checks."""
        return seal(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Receipt":
        """The receipt of that JSON object.

        Raises:
            ValueError: it is not one, or damaged, or names files elsewhere.
        """
        plain = unseal(text)
        try:
            for kind in ("data", "links", "quarantine"):
                if plain[kind] is not None:
                    plain[kind] = WrittenFile(**plain[kind])
                    demand_below(kind, plain[kind].path)
            for path in plain["refers"]:
                demand_below("data", path)
            return cls(**plain | {"refers": tuple(plain["refers"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is no receipt: {error}") from error


def demand_below(folder: str, path: str) -> None:
    """Refuse a path that is not plain and below a folder of the dataset's root.

    Raises:
        ValueError: it could lead elsewhere.
    """
    if not _PLAIN_PATH.fullmatch(path) or not path.startswith(f"{folder}/"):
        raise ValueError(f"{path!r} is not a plain path below {folder}/")


@dataclass(kw_only=True)
class Tally:
    """Sums over receipts."""

    units: int = 0
    rows: int = 0
    items: int = 0
    tokens: int = 0
    size: int = 0
    """Bytes of files."""
    embedded: Counter[str] = field(default_factory=Counter)
    linked: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)

    def add(self, receipt: Receipt) -> None:
        """Count one more."""
        self.units += 1
        self.rows += receipt.rows
        self.items += receipt.items
        self.tokens += receipt.tokens
        self.size += sum(file.size for file in receipt.files)
        self.embedded.update(receipt.embedded)
        self.linked.update(receipt.linked)
        self.quarantined.update(receipt.quarantined)


def shard_key(uri: str, reading: str) -> str:
    """Names a shard, and how its rows are read, as 32 hex digits."""
    # as JSON, since a name need not be Unicode
    return hashlib.sha256(json.dumps([uri, reading]).encode()).hexdigest()[:32]


def shard_state(key: str, size: int, etag: str) -> str:
    """Names a shard as it was listed, as 32 hex digits."""
    return hashlib.sha256(json.dumps([key, size, etag]).encode()).hexdigest()[:32]


def rows_by_adapter(units: Iterable[WorkUnit]) -> dict[str, int]:
    """Source rows of each adapter that has any."""
    rows: dict[str, int] = {}
    for unit in units:
        rows[unit.adapter] = rows.get(unit.adapter, 0) + unit.rows
    return rows


def tally(receipts: Iterable[Receipt]) -> Tally:
    """The sums over some receipts."""
    total = Tally()
    for receipt in receipts:
        total.add(receipt)
    return total
