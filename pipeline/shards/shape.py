"""What the formats share: the result of an inspection, type agreement, and building source rows."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import Reason, SourceError
from pipeline.schema import source_schema
from pipeline.source_spec import SourceSpec
from pipeline.work import Segment

TEXT_UNIT_ROWS = 1024
IMAGE_UNIT_ROWS = 128
"""A page is about a thousand tokens and 1.7 MB resized: 128 of them are some 200 MB."""
UNIT_PIXEL_BYTES = 256 << 20
"""Bound of a unit's resized images, were each as large as it may be."""
IMAGE_UNIT_BYTES, TEXT_UNIT_BYTES = 64 << 20, 4 << 20
"""A unit's encoded input is kept below these where the shard says how large its rows are. 4 MiB of
text are about a million tokens: 256 MB of multi-vectors in float16."""


@dataclass(frozen=True, kw_only=True)
class UnitSize:
    """How large a unit of work may be."""

    rows: int | None
    """Rows asked for; None for what memory and the modality suggest."""
    max_pixels: int
    """Bound of a resized image."""

    def rows_of(self, source: SourceSpec, row_bytes: float = 0.0) -> int:
        """Rows of a unit.

        Args:
            source: what it is read from.
            row_bytes: mean size of a row's encoded input; 0 where the shard does not say.
        """
        if self.rows is not None:
            return self.rows
        if source.maps_image:
            most, most_bytes = IMAGE_UNIT_ROWS, IMAGE_UNIT_BYTES
            most = min(most, UNIT_PIXEL_BYTES // (3 * self.max_pixels))
        else:
            most, most_bytes = TEXT_UNIT_ROWS, TEXT_UNIT_BYTES
        return max(1, min(most, int(most_bytes // row_bytes)) if row_bytes else most)


@dataclass(kw_only=True)
class Inspected:
    """What planning learns of one shard."""

    unit_rows: int
    """Rows of a unit."""
    segments: list[Segment] = field(default_factory=list)
    """Its rows, in runs that can be opened alone."""
    by_adapter: list[Counter[str]] = field(default_factory=list)
    """For each segment, how many of its rows go to each adapter."""
    id_type: pa.DataType = field(default_factory=pa.null)
    """Of the ids; null when the shard has no row to tell."""
    kept: dict[str, pa.DataType] = field(default_factory=dict)
    """Of the kept columns; null likewise."""
    identities: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """Hash of each row's id and task, [rows]; empty when nobody asked."""


def count_adapters(source: SourceSpec, tasks: Iterable[str | None] | int) -> Counter[str]:
    """Rows by adapter: of a routing column's values, or of that many rows of the one task."""
    if isinstance(tasks, int):
        return Counter({source.adapter_of(source.task_name): tasks})
    counted: Counter[str] = Counter()
    for task, rows in Counter(tasks).items():
        counted[source.adapter_of(task)] += rows
    return counted


def infer_type(values: Sequence[Any], field_name: str, shard: str) -> pa.DataType:
    """The Arrow type of parsed JSON values.

    Raises:
        SourceError: they have no common type.
    """
    try:
        # built, not only inferred: inference looks at kinds one by one and is content too early
        return pa.array([_encodable(value)[0] for value in values]).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise SourceError(
            f"{field_name} has values of different types in {shard}: {str(error).splitlines()[0]}"
        ) from None


def agree(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both, widened where needed; None when there is none."""
    schemas = [pa.schema([pa.field("", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


@dataclass(kw_only=True)
class SourceRow:
    """One row as read, before it becomes Arrow."""

    locator: str
    id: Any
    task: str | None
    text: bytes | None = None
    image: bytes | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    fault: tuple[Reason, str] | None = None


def to_table(
    rows: Sequence[SourceRow], first_row: int, id_type: pa.DataType, kept: Sequence[pa.Field]
) -> pa.Table:
    """Source rows as Arrow; a row with text that is not Unicode becomes one with a fault."""
    checked = [_checked(row, [f.name for f in kept]) for row in rows]
    columns = {
        "row": range(first_row, first_row + len(rows)),
        "locator": [row.locator for row in checked],
        "id": [row.id for row in checked],
        "task": [row.task for row in checked],
        "text": [row.text for row in checked],
        "image": [row.image for row in checked],
        "kept": [row.kept for row in checked],
        "reason": [row.fault and str(row.fault[0]) for row in checked],
        "stage": ["source" if row.fault else None for row in checked],
        "message": [row.fault and row.fault[1] for row in checked],
    }
    schema = source_schema(id_type, kept)
    return pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def _checked(row: SourceRow, kept: Sequence[str]) -> SourceRow:
    """The row with its kept columns alone, and nothing Arrow could not encode."""
    named = {"id": row.id, "task": row.task} | {name: row.kept.get(name) for name in kept}
    clean = {name: _encodable(value) for name, value in named.items()}
    bad = [name for name, (_, fine) in clean.items() if not fine]
    fault = row.fault
    if bad and fault is None:
        fault = (Reason.INVALID_UNICODE, f"{bad[0]!r} is not Unicode")
    return SourceRow(
        locator=row.locator.encode(errors="backslashreplace").decode(),
        id=clean["id"][0],
        task=clean["task"][0],
        text=row.text,
        image=row.image,
        kept={name: clean[name][0] for name in kept},
        fault=fault,
    )


def _encodable(value: Any) -> tuple[Any, bool]:
    """(the value, True), or (None, False) for one that holds a lone surrogate."""
    if isinstance(value, str | list | dict):
        try:
            str(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
        except UnicodeEncodeError:
            return None, False
    return value, True
