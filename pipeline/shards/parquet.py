"""Parquet shards: planned from their footers, read by row group.

With a routing column, that column alone is read ahead. A row group is opened once for each adapter
that has rows in it, and streamed, so one that holds a whole shard costs no more memory than one
unit. Text travels as bytes and is decoded row by row, because one cell of invalid UTF-8 fails a
whole column otherwise.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import RowError, SourceError
from pipeline.schema import source_schema
from pipeline.shards.references import read_images
from pipeline.shards.shape import Inspected, count_adapters, rows_per_unit
from pipeline.spec import SourceSpec
from pipeline.storage import StoredObject, base_directory, open_object
from pipeline.work import Segment

SUFFIXES = (".parquet", ".pq")


def inspect(
    source: SourceSpec, index: int, shard: StoredObject, unit_rows: int | None
) -> Inspected:
    """Plan a shard from its footer, and its routing column if there is one.

    Raises:
        SourceError: not Parquet, or a mapped column is missing or of an unusable type.
    """
    try:
        with open_object(shard.uri) as stream, pq.ParquetFile(stream) as file:
            schema = file.schema_arrow
            _demand_columns(source, schema, shard)
            metadata = file.metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            total = sum(metadata.row_group(i).total_byte_size for i in range(len(sizes)))
            rows = rows_per_unit(source, unit_rows, total / max(1, sum(sizes)))
            found = Inspected(
                unit_rows=rows,
                id_type=_plain(schema.field(source.id or "").type),
                kept={name: schema.field(name).type for name in source.keep},
            )
            for groups, first, count in _runs(sizes, rows):
                found.segments.append(
                    Segment(
                        source=index, shard=shard, first_row=first, rows=count, row_groups=groups
                    )
                )
                found.by_adapter.append(_route(source, file, groups, count))
            return found
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{shard.uri} cannot be read as Parquet: {reason}") from error


def read(
    source: SourceSpec,
    segment: Segment,
    id_type: pa.DataType,
    kept: Sequence[pa.Field],
    batch_rows: int,
) -> Iterator[pa.Table]:
    """The rows of a segment, in order, a batch at a time."""
    mapped = [source.id, source.text, source.image, source.task_column, *source.keep]
    columns = list(dict.fromkeys(name for name in mapped if name is not None))
    first = segment.first_row
    with open_object(segment.shard.uri) as stream, pq.ParquetFile(stream) as file:
        for batch in file.iter_batches(
            batch_size=batch_rows, row_groups=list(segment.row_groups), columns=columns
        ):
            yield _source_rows(source, segment, batch, first, id_type, kept)
            first += batch.num_rows


def _runs(sizes: list[int], rows: int) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Runs of whole row groups of about so many rows: (groups, first row, row count)."""
    groups: list[int] = []
    first = count = 0
    for group, size in enumerate(sizes):
        if groups and count + size > rows:
            yield tuple(groups), first, count
            first, count, groups = first + count, 0, []
        groups.append(group)
        count += size
    if count:
        yield tuple(groups), first, count


def _route(
    source: SourceSpec, file: pq.ParquetFile, groups: tuple[int, ...], rows: int
) -> Counter[str]:
    column = source.task_column
    if column is None:
        return count_adapters(source, rows)
    tasks = file.read_row_groups(list(groups), columns=[column])[column]
    return count_adapters(source, tasks.to_pylist())


def _demand_columns(source: SourceSpec, schema: pa.Schema, shard: StoredObject) -> None:
    wanted = {"id": source.id, "text": source.text, "image": source.image}
    wanted |= {"task.column": source.task_column}
    named = [(key, name) for key, name in wanted.items() if name is not None]
    for key, name in [*named, *(("keep", name) for name in source.keep)]:
        if name not in schema.names:
            raise SourceError(
                f"source.{key}: {shard.uri} has no column {name!r}; it has "
                f"{', '.join(schema.names)}"
            )
    for key, name in named:
        kind = _plain(schema.field(name).type)
        if not _USABLE[key](kind):
            raise SourceError(
                f"source.{key}: column {name!r} of {shard.uri} is {kind}, expected {_EXPECTED[key]}"
            )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _is_bytes(kind: pa.DataType) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {kind.field(i).name for i in range(kind.num_fields)} >= {"bytes", "path"}
    return _is_bytes(kind) or _is_text(kind)


def _is_id(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_null(kind))


_USABLE = {"id": _is_id, "text": _is_text, "image": _is_image, "task.column": _is_text}
_EXPECTED = {
    "id": "a plain value such as a string or an integer",
    "text": "a string",
    "image": "encoded bytes, a {bytes, path} struct, or a path",
    "task.column": "a string",
}


def _source_rows(
    source: SourceSpec,
    segment: Segment,
    batch: pa.RecordBatch,
    first: int,
    id_type: pa.DataType,
    kept: Sequence[pa.Field],
) -> pa.Table:
    count = batch.num_rows
    schema = source_schema(id_type, kept)
    columns = {field.name: pa.nulls(count, field.type) for field in schema}
    columns["row"] = pa.array(range(first, first + count), pa.int64())
    uri = segment.shard.uri
    columns["locator"] = pa.array([f"{uri}#row={first + i}" for i in range(count)])
    columns["id"] = batch[source.id].cast(id_type)
    if source.task_column is None:
        columns["task"] = pa.repeat(pa.scalar(source.task), count)
    else:
        columns["task"] = batch[source.task_column].cast(pa.string())
    if source.text is not None:
        # to bytes without a look at the content: it is decoded, or refused, row by row
        columns["text"] = _undictionary(batch[source.text]).cast(pa.large_binary())
    if source.image is not None:
        columns |= _images(source, _undictionary(batch[source.image]))
    if kept:
        arrays = [
            batch[f.name].cast(f.type) if f.name in source.keep else pa.nulls(count, f.type)
            for f in kept
        ]
        columns["kept"] = pa.StructArray.from_arrays(arrays, fields=list(kept))
    else:
        columns["kept"] = pa.array([{}] * count, pa.struct([]))
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _undictionary(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _images(source: SourceSpec, cells: pa.Array) -> dict[str, pa.Array]:
    """The image column, and the faults of images that a path did not lead to."""
    kind = cells.type
    if _is_bytes(kind):
        return {"image": cells.cast(pa.large_binary())}
    content = pa.nulls(len(cells), pa.large_binary())
    paths = cells
    if pa.types.is_struct(kind):
        content = pc.struct_field(cells, "bytes").cast(pa.large_binary())
        paths = pc.struct_field(cells, "path")
    wanted = [
        None if there else path
        for there, path in zip(
            content.is_valid().to_pylist(), paths.cast(pa.string()).to_pylist(), strict=True
        )
    ]
    read = read_images(base_directory(source.uris[0]), wanted)
    faults = [item if isinstance(item, RowError) else None for item in read]
    fetched = pa.array(
        [item if isinstance(item, bytes) else None for item in read], pa.large_binary()
    )
    return {
        "image": pc.coalesce(content, fetched),
        "reason": pa.array([f and str(f.reason) for f in faults], pa.string()),
        "stage": pa.array(["source" if f else None for f in faults], pa.string()),
        "message": pa.array([f and str(f) for f in faults], pa.string()),
    }
