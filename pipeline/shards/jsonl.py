"""JSONL shards: one JSON object a line, planned by one pass over the lines.

The pass finds where lines begin, so that a segment can be read alone, and parses them for the
types of ids and kept columns, which JSON does not declare. A line that is no JSON object is a row
with a fault. Images are paths below the source, or URLs.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import Reason, RowError, SourceError
from pipeline.shards.identities import Identities
from pipeline.shards.references import base_of, read_images
from pipeline.shards.shape import (
    Inspected,
    SourceRow,
    UnitSize,
    count_adapters,
    infer_type,
    to_table,
)
from pipeline.source_spec import SourceSpec
from pipeline.storage import StoredObject, open_object, read_object
from pipeline.work import Segment

SUFFIXES = (".jsonl", ".ndjson")
_READ_AHEAD = 8 << 20
"""Bytes; a shard is read from end to end."""


def inspect(
    source: SourceSpec,
    index: int,
    shard: StoredObject,
    unit_size: UnitSize,
    identities: Identities | None = None,
) -> Inspected:
    """Plan a shard by reading its lines once.

    Raises:
        SourceError: no line has a mapped column, or a column mixes types.
    """
    scan = _Scan(source, shard)
    step = unit_size.rows_of(source, (scan.stops or [0])[-1] / max(1, len(scan.stops)))
    found = Inspected(unit_rows=step)
    for first in range(0, len(scan.stops), step):
        stops = scan.stops[first : first + step]
        start = scan.stops[first - 1] if first else 0
        found.segments.append(
            Segment(
                source=index,
                shard=shard,
                first_row=first,
                rows=len(stops),
                span=(start, stops[-1]),
            )
        )
        routed = scan.tasks[first : first + step] if source.task_column else len(stops)
        found.by_adapter.append(count_adapters(source, routed))
    _demand_columns(source, list(scan.names), shard)
    found.id_type = _id_type(source, scan, shard)
    if identities is not None:
        identities.add(scan.values[source.id or ""], source.task_name or source.known(scan.tasks))
    found.kept = {
        name: infer_type(scan.values[name], f"source.keep: {name!r}", shard.uri)
        for name in source.keep
    }
    return found


class _Scan:
    """What one pass over the lines finds."""

    def __init__(self, source: SourceSpec, shard: StoredObject) -> None:
        self.stops: list[int] = []
        """The byte after each row's line."""
        self.tasks: list[str | None] = []
        """Of the routing column."""
        self.values: dict[str, list[Any]] = {name: [] for name in (source.id or "", *source.keep)}
        """Of ids and kept columns, for their types."""
        self.names: dict[str, None] = {}
        """Every key seen."""
        stop = 0
        with open_object(shard, _READ_AHEAD) as stream:
            for line in stream:
                stop += len(line)
                if not line.strip():
                    continue
                record = _parse(line)
                fields = record if isinstance(record, dict) else {}
                self.stops.append(stop)
                self.tasks.append(_string(fields.get(source.task_column or "")))
                self.names |= dict.fromkeys(fields)
                for name, values in self.values.items():
                    values.append(fields.get(name))


def _id_type(source: SourceSpec, scan: _Scan, shard: StoredObject) -> pa.DataType:
    name = source.id or ""
    found = infer_type(scan.values[name], f"source.id: {name!r}", shard.uri)
    if pa.types.is_nested(found) or pa.types.is_floating(found):
        raise SourceError(
            f"source.id: {name!r} is {found} in {shard.uri}, expected a string or a whole number"
        )
    return found


def read(
    source: SourceSpec,
    segment: Segment,
    id_type: pa.DataType,
    kept: Sequence[pa.Field],
    batch_rows: int,
) -> Iterator[pa.Table]:
    """The rows of a segment, in order, a batch at a time."""
    content = read_object(segment.shard.uri, *segment.span)
    lines = [line for line in content.split(b"\n") if line.strip()]
    first = segment.first_row
    for at in range(0, len(lines), batch_rows):
        chosen = lines[at : at + batch_rows]
        records = [_parse(line) for line in chosen]
        base = base_of(source, segment.shard.uri)
        images = read_images(base, _image_paths(source, records), source.image_hosts)
        rows = [
            _row(source, record, image, f"{segment.shard.uri}#record={first + i}")
            for i, (record, image) in enumerate(zip(records, images, strict=True))
        ]
        yield to_table(rows, first, id_type, kept)
        first += len(chosen)


def _parse(line: bytes) -> dict[str, Any] | str:
    """The object of a line, or what is wrong with it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON: {error}"
    return record if isinstance(record, dict) else "the line is JSON, but not an object"


def _row(
    source: SourceSpec,
    record: dict[str, Any] | str,
    image: bytes | RowError | None,
    locator: str,
) -> SourceRow:
    task = source.task_name
    if isinstance(record, str):
        fault = (Reason.MALFORMED_RECORD, record)
        return SourceRow(locator=locator, id=None, task=task, fault=fault)
    if source.task_column is not None:
        task = _string(record.get(source.task_column))
    text = record.get(source.text) if source.text is not None else None
    row = SourceRow(
        locator=locator,
        id=record.get(source.id or ""),
        task=task,
        kept={name: record.get(name) for name in source.keep},
    )
    if isinstance(image, RowError):
        row.fault = (image.reason, str(image))
    else:
        row.image = image
    path = record.get(source.image) if source.image is not None else None
    if not isinstance(path, str | None):
        row.fault = (Reason.MALFORMED_RECORD, f"{source.image!r} is not a string")
    if isinstance(text, str):
        # a lone surrogate is legal JSON: let it through, to be refused with its own reason
        row.text = text.encode(errors="surrogatepass")
    elif text is not None:
        row.fault = (Reason.MALFORMED_RECORD, f"{source.text!r} is not a string")
    return row


def _image_paths(source: SourceSpec, records: list[dict[str, Any] | str]) -> list[str | None]:
    if source.image is None:
        return [None] * len(records)
    return [_string(r.get(source.image)) if isinstance(r, dict) else None for r in records]


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _demand_columns(source: SourceSpec, names: list[str], shard: StoredObject) -> None:
    wanted = {"id": source.id, "text": source.text, "image": source.image}
    wanted |= {"task.column": source.task_column}
    pairs = [*wanted.items(), *(("keep", name) for name in source.keep)]
    for key, name in pairs:
        if name is not None and names and name not in names:
            raise SourceError(
                f"source.{key}: no line of {shard.uri} has {name!r}; they have {', '.join(names)}"
            )
