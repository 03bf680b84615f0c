"""Milvus fed by its own client: rows that are inserted, as its documentation has it."""

from collections.abc import Iterator

import pyarrow as pa
from pymilvus import DataType, MilvusClient

BATCHES = (500, 1_000, 2_000, 5_000)
"""Rows of one insert."""
_TEXTS = ("modality", "task", "title")


def fill(rows: Iterator[pa.Table], place: str, batch: int) -> None:
    """A new collection of all rows.

    Args:
        rows: of about `batch` rows each, with the vectors in `embedding`.
        place: a server, or a path that ends in `.db`.
        batch: rows of one insert.
    """
    client = MilvusClient(place, dedicated=True)
    for some in rows:
        if not client.has_collection("docs"):
            _create(client, some.schema.field("embedding").type.list_size)
        for start in range(0, some.num_rows, batch):
            client.insert("docs", _plain(some.slice(start, batch)))
    client.close()


def _create(client: MilvusClient, size: int) -> None:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=256)
    for name in _TEXTS:
        schema.add_field(name, DataType.VARCHAR, max_length=1_024)
    schema.add_field("year", DataType.INT64)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=size)
    indexes = client.prepare_index_params()
    indexes.add_index("embedding", index_type="FLAT", metric_type="COSINE")
    client.create_collection("docs", schema=schema, index_params=indexes)


def _plain(some: pa.Table) -> list[dict[str, object]]:
    size = some.schema.field("embedding").type.list_size
    vectors = some["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, size).tolist()
    rows = some.drop_columns(["embedding"]).to_pylist()
    return [row | {"embedding": vector} for row, vector in zip(rows, vectors, strict=True)]


def count(place: str) -> int:
    """Rows that are there."""
    client = MilvusClient(place, dedicated=True)
    (found,) = client.query("docs", output_fields=["count(*)"])
    client.close()
    return int(found["count(*)"])
