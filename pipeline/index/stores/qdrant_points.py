"""Collections and points as Qdrant takes and gives them.

    id        the UUID
    payload   nightjar_stamp, nightjar_run, and the columns that are not null; times in ISO 8601
    vector    by name, each only where the point has it

They are made without the checks of the client's models, which look at every number once more: what
comes from Arrow has a type.

Legend: N points, V vectors of all of them, D size of a vector.
"""

import datetime
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from qdrant_client import models

from pipeline.index.layout import (
    MULTI,
    NUMBER,
    POINT,
    POINT_TYPE,
    SINGLE,
    STAMP,
    TIME,
    Layout,
    as_one,
)
from pipeline.index.store import Refused


def vectors_of(layout: Layout) -> dict[str, models.VectorParams]:
    """The vectors of a collection, none of them indexed yet."""
    found = {}
    none = models.HnswConfigDiff(m=0)
    if layout.single is not None:
        is_half = layout.single.dtype == "float16"
        found[SINGLE] = models.VectorParams(
            size=layout.single.size,
            distance=models.Distance.COSINE,
            datatype=models.Datatype.FLOAT16 if is_half else models.Datatype.FLOAT32,
            hnsw_config=none,
        )
    if layout.multi is not None:
        comparator = models.MultiVectorComparator.MAX_SIM
        found[MULTI] = models.VectorParams(
            size=layout.multi.size,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT32,
            multivector_config=models.MultiVectorConfig(comparator=comparator),
            hnsw_config=none,
        )
    return found


def told_of(vectors: models.VectorParams) -> str:
    """What is compared of vectors with what a layout asks for."""
    many = vectors.multivector_config
    how = vectors.distance.value if many is None else f"{vectors.distance.value} {many.comparator}"
    kind = vectors.datatype or models.Datatype.FLOAT32
    return f"{vectors.size} numbers of {kind.value}, {how}"


def columns_of(layout: Layout) -> dict[str, str]:
    """The types of the payload, which Qdrant itself does not know."""
    return dict(layout.to_plain()["payload"])


def stamps_of(records: Sequence[models.Record]) -> pa.Table:
    """UUIDs and stamps."""
    points = [UUID(str(one.id)).bytes for one in records]
    told = [(one.payload or {})[STAMP] for one in records]
    return pa.table({POINT: pa.array(points, POINT_TYPE), STAMP: pa.array(told, pa.int64())})


def points_of(table: pa.Table) -> list[models.PointStruct]:
    """Points as the client sends them.

    Args:
        table: of points, as their layout has them.

    Raises:
        Refused: a number that JSON does not have, or a multi-vector without vectors.
    """
    vectors: dict[str, list[Any]] = {}
    if SINGLE in table.schema.names:
        vectors[SINGLE] = _singles(as_one(table[SINGLE]))
    if MULTI in table.schema.names:
        vectors[MULTI] = _multis(as_one(table[MULTI]))
    return [
        models.PointStruct.model_construct(
            id=str(UUID(bytes=point)),
            vector={name: those[at] for name, those in vectors.items() if those[at] is not None},
            payload=payload,
        )
        for at, (point, payload) in enumerate(
            zip(table[POINT].to_pylist(), _payloads(table), strict=True)
        )
    ]


def table_of(records: Sequence[models.Record], layout: Layout) -> pa.Table:
    """Points that were read back, of `layout.schema`."""
    rows = payload_rows(records, layout)
    for row, record in zip(rows, records, strict=True):
        vectors = record.vector if isinstance(record.vector, dict) else {}
        for name, kind in layout.vectors.items():
            found: Any = vectors.get(name)
            if found is not None:
                numbers = np.asarray(found, kind.dtype)
                row[name] = numbers if name == SINGLE else list(numbers)
    return pa.Table.from_pylist(rows, layout.schema)


def payload_rows(
    found: Sequence[models.Record] | Sequence[models.ScoredPoint], layout: Layout
) -> list[dict[str, Any]]:
    """UUID and payload of each point, as Arrow takes them."""
    times = {name for name, kind in layout.payload if kind == TIME}
    rows: list[dict[str, Any]] = []
    for one in found:
        row: dict[str, Any] = dict(one.payload or {})
        for name in times & row.keys():
            row[name] = datetime.datetime.fromisoformat(row[name])
        rows.append({POINT: UUID(str(one.id)).bytes} | row)
    return rows


def _payloads(table: pa.Table) -> list[dict[str, Any]]:
    names = [name for name in table.schema.names if name not in (POINT, SINGLE, MULTI)]
    plain = table.select(names)
    for at, name in enumerate(names):
        kind = plain.schema.field(name).type
        if kind == TIME:
            texts = pc.strftime(plain[name], format="%Y-%m-%dT%H:%M:%SZ")
            plain = plain.set_column(at, name, texts)
        elif kind == NUMBER and not pc.all(pc.is_finite(plain[name])).as_py():
            raise Refused(f"a number of {name!r} is not finite")
    return [
        {name: cell for name, cell in row.items() if cell is not None} for row in plain.to_pylist()
    ]


def _singles(column: pa.FixedSizeListArray) -> list[list[float] | None]:
    """The vector of each point; None where it is null."""
    vectors_ND = _numbers(column)
    if not column.null_count:
        return list(vectors_ND.tolist())
    there = iter(vectors_ND.tolist())
    return [next(there) if is_valid else None for is_valid in column.is_valid().to_pylist()]


def _multis(column: pa.ListArray) -> list[list[list[float]] | None]:
    """The vectors of each point; None where they are null."""
    vectors_VD = _numbers(column.flatten())
    lengths = pc.list_value_length(column).to_pylist()
    if 0 in lengths:
        raise Refused("a multi-vector has no vectors")
    found: list[list[list[float]] | None] = []
    start = 0
    for length in lengths:
        if length is None:
            found.append(None)
            continue
        found.append(vectors_VD[start : start + length].tolist())
        start += length
    return found


def _numbers(vectors: pa.FixedSizeListArray) -> NDArray[np.floating]:
    """[V, D] the vectors that are not null."""
    size = vectors.type.list_size
    numbers: NDArray[np.floating] = vectors.flatten().to_numpy(zero_copy_only=False)
    if not np.isfinite(numbers).all():
        raise Refused("a number of a vector is not finite")
    return numbers.reshape(-1, size)
