"""What planning learned of each shard, kept beside the dataset.

Tar and JSONL shards are read whole to be planned, and so is every id. A run that goes on where
another was cut off, or that finds its work done, asks here first: the object is named by what was
looked at and how, so it can never be out of date, and one that is missing or damaged only costs
the look at the shard. `garbage` collects those of shards that no snapshot was made from.
"""

import hashlib
import io
import json
from collections import Counter
from dataclasses import asdict

import pyarrow as pa

from pipeline.folder import Folder
from pipeline.manifest import INSPECTIONS
from pipeline.shards.shape import Inspected, UnitSize
from pipeline.source_spec import SourceSpec
from pipeline.storage import StoredObject
from pipeline.work import Segment, shard_key, shard_state

_VERSION = "1"
"""Raised by hand when shards are cut another way."""


class Remembered:
    """The inspections of one dataset."""

    def __init__(self, folder: Folder) -> None:
        """Look what is there, below the dataset's root."""
        self._folder = folder
        self._there = set(folder.names(INSPECTIONS))
        # as they are and not as bytes: whoever plans holds them too, 8 bytes a row of ids
        self._new: dict[str, Inspected] = {}

    def find(self, name: str, index: int, shard: StoredObject) -> Inspected | None:
        """What is known of a shard under a name, the source's number given; None for nothing."""
        if name not in self._there:
            return None
        try:
            return _from_bytes(self._folder.get(f"{INSPECTIONS}/{name}"), index, shard)
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def add(self, name: str, found: Inspected) -> None:
        """Remember what was learned of a shard, in this process so far."""
        self._new[name] = found

    def keep(self) -> None:
        """Write what is new."""
        while self._new:
            name, found = self._new.popitem()
            self._folder.put(f"{INSPECTIONS}/{name}", _to_bytes(found))


def inspection_name(
    source: SourceSpec, shard: StoredObject, unit_size: UnitSize, distinct: bool
) -> str:
    """Names an inspection by what was looked at, and how.

    Args:
        source: how its rows are read.
        shard: as listed.
        unit_size: into which it is cut.
        distinct: whether its rows were identified.
    """
    state = shard_state(shard_key(shard.uri, source.reading), shard.size, shard.etag)
    how = {"version": _VERSION, "unit_size": asdict(unit_size), "distinct": distinct}
    looked = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()
    return f"{state}-{looked[:16]}"


def _to_bytes(found: Inspected) -> bytes:
    types = pa.schema([pa.field("id", found.id_type), *found.kept.items()])
    described = {
        "unit_rows": found.unit_rows,
        "types": types.serialize().to_pybytes().hex(),
        "segments": [
            {
                "first_row": segment.first_row,
                "rows": segment.rows,
                "row_groups": segment.row_groups,
                "span": segment.span,
                "by_adapter": by_adapter,
            }
            for segment, by_adapter in zip(found.segments, found.by_adapter, strict=True)
        ],
    }
    table = pa.table({"identity": pa.array(found.identities, pa.uint64())})
    buffer = io.BytesIO()
    with pa.ipc.new_stream(
        buffer, table.schema.with_metadata({"described": json.dumps(described)})
    ) as writer:
        writer.write_table(table)
    data = buffer.getvalue()
    return hashlib.sha256(data).digest() + data


def _from_bytes(data: bytes, index: int, shard: StoredObject) -> Inspected:
    size = hashlib.sha256().digest_size
    if hashlib.sha256(data[size:]).digest() != data[:size]:
        raise ValueError("damaged")
    with pa.ipc.open_stream(data[size:]) as reader:
        described = json.loads(reader.schema.metadata[b"described"])
        table = reader.read_all()
    types = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(described["types"])))
    found = Inspected(
        unit_rows=described["unit_rows"],
        id_type=types.field(0).type,
        kept={field.name: field.type for field in list(types)[1:]},
        identities=table["identity"].to_numpy(),
    )
    for segment in described["segments"]:
        found.by_adapter.append(Counter(segment["by_adapter"]))
        start, stop = segment["span"]
        found.segments.append(
            Segment(
                source=index,
                shard=shard,
                first_row=segment["first_row"],
                rows=segment["rows"],
                row_groups=tuple(segment["row_groups"]),
                span=(start, stop),
            )
        )
    return found
