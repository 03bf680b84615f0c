"""Folders of images: planned from the listing alone, one object for each row."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipeline.errors import Reason
from pipeline.shards.identities import Identities
from pipeline.shards.references import IMAGES_AT_ONCE, name_of
from pipeline.shards.shape import Inspected, SourceRow, UnitSize, count_adapters, to_table
from pipeline.source_spec import SourceSpec
from pipeline.storage import (
    StoredObject,
    demand_unchanged,
    read_object,
)
from pipeline.work import Segment

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


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
        identities.add([name_of(source, file.uri) for file in files], str(source.task_name))
    return found


def read(
    source: SourceSpec,
    segment: Segment,
    id_type: pa.DataType,
    kept: Sequence[pa.Field],
    batch_rows: int,
) -> Iterator[pa.Table]:
    """The images of a segment, in order, encoded as they are; the id is the relative path."""
    task = source.task_name

    def row(file: StoredObject) -> SourceRow:
        try:
            content, fault = read_object(file.uri), None
            demand_unchanged(file)
        except FileNotFoundError:
            content, fault = None, (Reason.IMAGE_NOT_FOUND, "it was listed and is gone")
        return SourceRow(
            locator=file.uri, id=name_of(source, file.uri), task=task, image=content, fault=fault
        )

    with ThreadPoolExecutor(IMAGES_AT_ONCE) as pool:
        for at in range(0, len(segment.files), batch_rows):
            rows = list(pool.map(row, segment.files[at : at + batch_rows]))
            yield to_table(rows, segment.first_row + at, id_type, kept)
