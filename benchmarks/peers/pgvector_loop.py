"""pgvector fed by its own client: binary COPY with its adapters, as its documentation has it."""

from collections.abc import Iterator

import psycopg
import pyarrow as pa
from pgvector.psycopg import register_vector

BATCHES = (1_000, 5_000, 20_000)
"""Rows of one COPY."""
_COLUMNS = {"id": "text", "modality": "text", "task": "text", "title": "text", "year": "int4"}


def fill(rows: Iterator[pa.Table], place: str, batch: int) -> None:
    """A new table of all rows.

    Args:
        rows: of about `batch` rows each, with the vectors in `embedding`.
        place: a database, as libpq takes it.
        batch: rows of one COPY.
    """
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        for some in rows:
            size = some.schema.field("embedding").type.list_size
            columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS docs ({columns}, embedding vector({size}), "
                "PRIMARY KEY (id))"
            )
            _copy(connection, some)


def _copy(connection: psycopg.Connection, some: pa.Table) -> None:
    size = some.schema.field("embedding").type.list_size
    vectors = some["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, size)
    plain = zip(*(some[name].to_pylist() for name in _COLUMNS), vectors, strict=True)
    names = ", ".join(_COLUMNS)
    query = f"COPY docs ({names}, embedding) FROM STDIN WITH (FORMAT BINARY)"
    with connection.cursor().copy(query) as copy:
        copy.set_types([*_COLUMNS.values(), "vector"])
        for row in plain:
            copy.write_row(row)


def count(place: str) -> int:
    """Rows that are there."""
    with psycopg.connect(place) as connection:
        (found,) = connection.execute("SELECT count(*) FROM docs").fetchone() or (0,)
        return int(found)
