"""Folders of images: planned from the listing alone, one object for each row."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipeline.errors import Reason
from pipeline.shards.identities import Identities
from pipeline.shards.shape import Inspected, SourceRow, UnitSize, count_adapters, to_table
from pipeline.source_spec import SourceSpec
from pipeline.storage import (
    StoredObject,
    base_directory,
    demand_unchanged,
    locate,
    read_object,
)
from pipeline.work import Segment

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

_CONCURRENT_READS = 8


def inspect(
    source: SourceSpec,
    index: int,
    files: Sequence[StoredObject],
    unit_size: UnitSize,
    identities: Identities | None = None,
) -> Inspected:
    """Plan a folder: files in listing order, some of them in each segment."""
    step = unit_size.rows_of(source)
    found = Inspected(unit_rows=step, id_type=pa.string())
    for first in range(0, len(files), step):
        chosen = tuple(files[first : first + step])
        found.segments.append(
            Segment(source=index, shard=chosen[0], first_row=first, rows=len(chosen), files=chosen)
        )
        found.by_adapter.append(count_adapters(source, len(chosen)))
    if identities is not None:
        bases = _bases(source)
        identities.add([_name(file, bases) for file in files], str(source.task))
    return found


def read(
    source: SourceSpec,
    segment: Segment,
    id_type: pa.DataType,
    kept: Sequence[pa.Field],
    batch_rows: int,
) -> Iterator[pa.Table]:
    """The images of a segment, in order, encoded as they are; the id is the relative path."""
    assert isinstance(source.task, str)
    task = source.task
    bases = _bases(source)

    def row(file: StoredObject) -> SourceRow:
        try:
            content, fault = read_object(file.uri), None
            demand_unchanged(file)
        except FileNotFoundError:
            content, fault = None, (Reason.IMAGE_NOT_FOUND, "it was listed and is gone")
        return SourceRow(
            locator=file.uri, id=_name(file, bases), task=task, image=content, fault=fault
        )

    with ThreadPoolExecutor(_CONCURRENT_READS) as pool:
        for at in range(0, len(segment.files), batch_rows):
            rows = list(pool.map(row, segment.files[at : at + batch_rows]))
            yield to_table(rows, segment.first_row + at, id_type, kept)


def _bases(source: SourceSpec) -> list[str]:
    return [locate(base_directory(uri)).path for uri in source.uris]


def _name(file: StoredObject, bases: Sequence[str]) -> str:
    """The id: the path below the directory that the source names."""
    path = locate(file.uri).path
    return next((path.removeprefix(f"{b}/") for b in bases if path.startswith(f"{b}/")), path)
