"""Qdrant fed by its own client: upserts of its points, as its documentation has it."""

import uuid
from collections.abc import Iterator

import pyarrow as pa
from qdrant_client import QdrantClient, models

BATCHES = (25, 50, 100, 250)
"""Points of one upsert."""
_COLUMNS = ["id", "modality", "task", "title", "year"]


def fill(rows: Iterator[pa.Table], place: str, batch: int) -> None:
    """A new collection of all rows, without an index.

    Args:
        rows: of about `batch` rows each, with the vectors in `embedding`.
        place: a server, or a directory for the engine in the client.
        batch: points of one upsert.
    """
    client = _client(place)
    is_made = False
    for some in rows:
        kind = some.schema.field("embedding").type
        if not is_made:
            vectors = models.VectorParams(
                size=kind.list_size,
                distance=models.Distance.COSINE,
                hnsw_config=models.HnswConfigDiff(m=0),
            )
            client.create_collection("docs", vectors_config={"single": vectors})
            is_made = True
        for start in range(0, some.num_rows, batch):
            client.upsert("docs", _points(some.slice(start, batch)), wait=True)
    client.close()


def _points(some: pa.Table) -> list[models.PointStruct]:
    column = some["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(some), -1).tolist()
    return [
        models.PointStruct(
            id=str(uuid.uuid5(uuid.NAMESPACE_OID, payload["id"])),
            vector={"single": vector},
            payload=payload,
        )
        for vector, payload in zip(vectors, some.select(_COLUMNS).to_pylist(), strict=True)
    ]


def count(place: str) -> int:
    """Points that are there."""
    client = _client(place)
    found = client.count("docs", exact=True).count
    client.close()
    return int(found)


def _client(place: str) -> QdrantClient:
    if "://" in place:
        return QdrantClient(url=place, timeout=60, check_compatibility=False)
    return QdrantClient(path=place)
