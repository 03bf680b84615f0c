"""Layouts as schemas of Milvus.

Times are whole microseconds since 1970, because the time type of Milvus is younger than most of its
servers. Vectors are float32: those of half precision lose nothing by it, and Milvus Lite has no
others.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
from pymilvus import CollectionSchema, DataType, MilvusClient
from pymilvus.milvus_client import IndexParams

from pipeline.errors import CollectionError
from pipeline.index.layout import (
    NUMBER,
    POINT,
    RUN,
    SINGLE,
    STAMP,
    TEXT,
    TIME,
    TRUTH,
    WHOLE,
    Layout,
)

TEXT_BYTES: Final = 65_535
"""Bytes of a text, at most: the longest that a column of Milvus may be declared."""
DIGITS: Final = 32
"""Of a UUID, the key of a point."""
COLUMNS: Final[Mapping[pa.DataType, DataType]] = {
    TEXT: DataType.VARCHAR,
    WHOLE: DataType.INT64,
    NUMBER: DataType.DOUBLE,
    TRUTH: DataType.BOOL,
    TIME: DataType.INT64,
}
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
METRIC: Final = "COSINE"
_GRAPH = {"M": 16, "efConstruction": 200}
"""Of an index that approximates: neighbours of a point, and how many are looked at for them."""


def schema_of(layout: Layout) -> CollectionSchema:
    """Of a collection.

    Raises:
        CollectionError: a column has a name that Milvus does not take.
    """
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(POINT, DataType.VARCHAR, is_primary=True, max_length=DIGITS)
    for name in (STAMP, RUN):
        schema.add_field(name, DataType.INT64)
    for name, kind in layout.payload:
        if not _PLAIN.fullmatch(name):
            raise CollectionError(
                f"store.payload: {name!r} is no name that Milvus takes, of letters, digits and _; "
                "leave it out, or keep the column under another name"
            )
        sized = {"max_length": TEXT_BYTES} if kind == TEXT else {}
        schema.add_field(name, COLUMNS[kind], nullable=True, **sized)
    if layout.single is not None:
        schema.add_field(SINGLE, DataType.FLOAT_VECTOR, dim=layout.single.size)
    return schema


def indexes_of(layout: Layout, names: Iterable[str]) -> Iterator[IndexParams]:
    """The indexes of some columns, each of its column's name."""
    for name in sorted(names):
        indexes = MilvusClient.prepare_index_params()
        if name == SINGLE:
            kind, params = ("HNSW", _GRAPH) if layout.approximate else ("FLAT", {})
            indexes.add_index(
                name, index_type=kind, index_name=name, metric_type=METRIC, params=params
            )
        else:
            indexes.add_index(name, index_type="INVERTED", index_name=name)
        yield indexes


def columns_of(fields: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The types of columns, with their sizes, by name."""
    return {
        field["name"]: " ".join(
            [DataType(field["type"]).name, *map(str, field.get("params", {}).values())]
        )
        for field in fields
    }
