"""JSONL shards: one JSON object a line, planned by one pass over the lines.

The pass finds where lines begin, so that a segment can be read alone, and parses them for the
types of ids and kept columns, which JSON does not declare. A line that is no JSON object is a row
with a fault. Images are paths below the source.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import Reason, RowError, SourceError
from pipeline.shards.references import read_images
from pipeline.shards.shape import (
    Inspected,
    SourceRow,
    count_adapters,
    infer_type,
    rows_per_unit,
    to_table,
)
from pipeline.spec import SourceSpec
from pipeline.storage import StoredObject, base_directory, open_object, read_object
from pipeline.work import Segment

SUFFIXES = (".jsonl", ".ndjson")


def inspect(
    source: SourceSpec, index: int, shard: StoredObject, unit_rows: int | None
) -> Inspected:
    """Plan a shard by reading its lines once.

    Raises:
        SourceError: no line has a mapped column, or a column mixes types.
    """
    rows = rows_per_unit(source, unit_rows)
    found, counted = Inspected(unit_rows=rows), 0
    typed: dict[str, list[Any]] = {name: [] for name in (source.id or "", *source.keep)}
    names: dict[str, None] = {}
    tasks: list[str | None] = []
    start = stop = first = 0

    def close() -> None:
        nonlocal start, first, counted
        if counted:
            segment = Segment(
                source=index, shard=shard, first_row=first, rows=counted, span=(start, stop)
            )
            found.segments.append(segment)
            routed = tasks if source.task_column is not None else counted
            found.by_adapter.append(count_adapters(source, routed))
        start, first, counted = stop, first + counted, 0
        tasks.clear()

    with open_object(shard.uri) as stream:
        for line in stream:
            stop += len(line)
            if not line.strip():
                continue
            record = _parse(line)
            counted += 1
            fields = record if isinstance(record, dict) else {}
            names |= dict.fromkeys(fields)
            tasks.append(_string(fields.get(source.task_column or "")))
            for name, values in typed.items():
                values.append(fields.get(name))
            if counted == rows:
                close()
    close()
    _demand_columns(source, list(names), shard)
    found.id_type = infer_type(typed[source.id or ""], f"source.id: {source.id!r}", shard.uri)
    found.kept = {
        name: infer_type(typed[name], f"source.keep: {name!r}", shard.uri) for name in source.keep
    }
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
    lines = [line for line in content.splitlines(keepends=True) if line.strip()]
    first = segment.first_row
    for at in range(0, len(lines), batch_rows):
        chosen = lines[at : at + batch_rows]
        records = [_parse(line) for line in chosen]
        images = read_images(base_directory(source.uris[0]), _image_paths(source, records))
        rows = [
            _row(source, record, image, f"{segment.shard.uri}#line={first + i}")
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
    task = source.task if isinstance(source.task, str) else None
    if isinstance(record, str):
        fault = (Reason.MALFORMED_RECORD, record)
        return SourceRow(locator=locator, id=None, task=task, fault=fault)
    if source.task_column is not None:
        task = _string(record.get(source.task_column))
    text = record.get(source.text) if source.text is not None else None
    row = SourceRow(locator=locator, id=record.get(source.id or ""), task=task, kept=record)
    if isinstance(image, RowError):
        row.fault = (image.reason, str(image))
    else:
        row.image = image
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
