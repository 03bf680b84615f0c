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

from pipeline.errors import Reason, RowError, ShardError, SourceError
from pipeline.schema import source_schema
from pipeline.shards.cells import is_bytes, is_text, plain, plain_type, valid_text
from pipeline.shards.footer import open_parquet
from pipeline.shards.identities import Identities
from pipeline.shards.references import base_of, read_images
from pipeline.shards.shape import Inspected, UnitSize, count_adapters
from pipeline.source_spec import SourceSpec
from pipeline.storage import StoredObject, open_object
from pipeline.work import Segment

SUFFIXES = (".parquet", ".pq")
_READ_AHEAD = 16 << 10
"""Bytes; Arrow asks for whole column chunks, or a buffer of its own, by itself."""


def inspect(
    source: SourceSpec,
    index: int,
    shard: StoredObject,
    unit_size: UnitSize,
    identities: Identities | None = None,
) -> Inspected:
    """Plan a shard from its footer, its routing column if there is one, and its ids if asked to.

    Raises:
        ShardError: not Parquet, or damaged.
        OSError: the store, or the disk, does not give it.
        SourceError: a mapped column is missing or of an unusable type.
    """
    try:
        with open_object(shard, _READ_AHEAD) as stream, open_parquet(stream, shard.uri) as file:
            schema = file.schema_arrow
            _demand_columns(source, schema, shard)
            metadata = file.metadata
            sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            total = sum(metadata.row_group(i).total_byte_size for i in range(len(sizes)))
            rows = unit_size.rows_of(source, total / max(1, sum(sizes)))
            found = Inspected(
                unit_rows=rows,
                id_type=plain_type(schema.field(source.id or "").type),
                kept={name: plain_type(schema.field(name).type) for name in source.keep},
            )
            routed = [_route(source, file, group, size) for group, size in enumerate(sizes)]
            for groups, first in _runs(routed, sizes, rows):
                by_adapter = sum((routed[group] for group in groups), Counter[str]())
                found.segments.append(
                    Segment(
                        source=index,
                        shard=shard,
                        first_row=first,
                        rows=by_adapter.total(),
                        row_groups=groups,
                    )
                )
                found.by_adapter.append(by_adapter)
            if identities is not None:
                _identify(source, file, identities)
            return found
    except (pa.ArrowInvalid, OSError) as error:
        # Arrow's complaints about the content have no errno; who cannot be asked says nothing of it
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).splitlines()[0]
        raise ShardError(f"{shard.uri} cannot be read as Parquet: {reason}") from error


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
    uri = segment.shard.uri
    with open_object(segment.shard, _READ_AHEAD) as stream, open_parquet(stream, uri) as file:
        for batch in file.iter_batches(
            batch_size=batch_rows, row_groups=list(segment.row_groups), columns=columns
        ):
            yield _source_rows(source, segment, batch, first, id_type, kept)
            first += batch.num_rows


def _runs(
    routed: list[Counter[str]], sizes: list[int], rows: int
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Runs of whole row groups of about so many rows: (groups, first row).

    Only groups with the same adapters are joined, so none is opened for an adapter it lacks.
    """
    groups: list[int] = []
    first = count = 0
    for group, size in enumerate(sizes):
        if groups and (count + size > rows or set(routed[group]) != set(routed[groups[-1]])):
            yield tuple(groups), first
            first, count, groups = first + count, 0, []
        if size:
            groups.append(group)
            count += size
    if groups:
        yield tuple(groups), first


def _identify(source: SourceSpec, file: pq.ParquetFile, identities: Identities) -> None:
    columns = [name for name in (source.id, source.task_column) if name is not None]
    for batch in file.iter_batches(columns=columns):
        ids, *tasks = (valid_text(plain(batch[name]))[0].to_pylist() for name in columns)
        identities.add(ids, source.task_name or source.known(tasks[0]))


def _route(source: SourceSpec, file: pq.ParquetFile, group: int, rows: int) -> Counter[str]:
    column = source.task_column
    if not rows:
        return Counter()
    if column is None:
        return count_adapters(source, rows)
    tasks = file.read_row_groups([group], columns=[column])[column].combine_chunks()
    return count_adapters(source, valid_text(plain(tasks))[0].to_pylist())


def _demand_columns(source: SourceSpec, schema: pa.Schema, shard: StoredObject) -> None:
    wanted = {"id": source.id, "text": source.text, "image": source.image}
    wanted |= {"task.column": source.task_column}
    named = [(key, name) for key, name in wanted.items() if name is not None]
    for key, name in [*named, *(("keep", name) for name in source.keep)]:
        if schema.names.count(name) > 1:
            raise SourceError(f"source.{key}: {shard.uri} has the column {name!r} twice")
        if name not in schema.names:
            raise SourceError(
                f"source.{key}: {shard.uri} has no column {name!r}; it has "
                f"{', '.join(schema.names)}"
            )
    for key, name in named:
        kind = plain_type(schema.field(name).type)
        if not _USABLE[key](kind):
            raise SourceError(
                f"source.{key}: column {name!r} of {shard.uri} is {kind}, expected {_EXPECTED[key]}"
            )


def _is_text_or_null(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_null(kind)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {kind.field(i).name for i in range(kind.num_fields)} >= {"bytes", "path"}
    return is_bytes(kind) or _is_text_or_null(kind)


def _is_id(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind)


_USABLE = {
    "id": _is_id,
    "text": _is_text_or_null,
    "image": _is_image,
    "task.column": _is_text_or_null,
}
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
    uri = segment.shard.uri
    cells = _Cells(batch)
    schema = source_schema(id_type, kept)
    columns = {field.name: pa.nulls(count, field.type) for field in schema}
    columns["row"] = pa.array(range(first, first + count), pa.int64())
    columns["locator"] = pa.array([f"{uri}#row={first + i}" for i in range(count)])
    columns["id"] = cells.take(source.id or "").cast(id_type)
    if source.task_column is None:
        columns["task"] = pa.repeat(pa.scalar(source.task_name), count)
    else:
        columns["task"] = cells.take(source.task_column).cast(pa.string())
    if source.text is not None:
        # to bytes without a look at the content: it is decoded, or refused, row by row
        columns["text"] = plain(batch[source.text]).cast(pa.large_binary())
    if source.image is not None:
        columns["image"] = _images(source, uri, plain(batch[source.image]), cells)
    arrays = [
        cells.take(f.name).cast(f.type) if f.name in source.keep else pa.nulls(count, f.type)
        for f in kept
    ]
    columns["kept"] = (
        pa.StructArray.from_arrays(arrays, fields=list(kept))
        if kept
        else pa.array([{}] * count, pa.struct([]))
    )
    columns |= cells.fault_columns()
    return pa.table([columns[field.name] for field in schema], schema=schema)


class _Cells:
    """The columns of a batch, and the faults found while they are taken."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._faults: dict[int, RowError] = {}

    def take(self, name: str) -> pa.Array:
        """A column, plain; a text in it that is not UTF-8 is null, and a fault of its row."""
        array, invalid = valid_text(plain(self._batch[name]))
        for index in invalid:
            self.blame(index, RowError(Reason.INVALID_UNICODE, f"{name!r} is not UTF-8"))
        return array

    def blame(self, index: int, error: RowError) -> None:
        """Note a row's fault; the first one counts."""
        self._faults.setdefault(index, error)

    def fault_columns(self) -> dict[str, pa.Array]:
        """`reason`, `stage` and `message`."""
        faults = [self._faults.get(index) for index in range(self._batch.num_rows)]
        return {
            "reason": pa.array([f and str(f.reason) for f in faults], pa.string()),
            "stage": pa.array(["source" if f else None for f in faults], pa.string()),
            "message": pa.array([f and str(f) for f in faults], pa.string()),
        }


def _images(source: SourceSpec, shard: str, column: pa.Array, cells: _Cells) -> pa.Array:
    """The image column as bytes; an image that its path did not lead to is its row's fault."""
    kind = column.type
    if is_bytes(kind):
        return column.cast(pa.large_binary())
    content = pa.nulls(len(column), pa.large_binary())
    paths = column.cast(pa.string()) if pa.types.is_null(kind) else column
    if pa.types.is_struct(kind):
        content = plain(pc.struct_field(column, "bytes")).cast(pa.large_binary())
        paths = plain(pc.struct_field(column, "path"))
    paths, invalid = valid_text(paths)
    for index in invalid:
        cells.blame(index, RowError(Reason.INVALID_UNICODE, "the path is not UTF-8"))
    there = content.is_valid().to_pylist()
    wanted = [None if t else path for t, path in zip(there, paths.to_pylist(), strict=True)]
    read = read_images(base_of(source, shard), wanted, source.image_hosts)
    for index, item in enumerate(read):
        if isinstance(item, RowError):
            cells.blame(index, item)
    fetched = [item if isinstance(item, bytes) else None for item in read]
    return pc.coalesce(content, pa.array(fetched, pa.large_binary()))
