"""LanceDB fed by its own client: a table that rows are added to, as its documentation has it."""

from collections.abc import Iterator

import lancedb
import pyarrow as pa

BATCHES = (5_000, 20_000, 50_000)
"""Rows of one `add`."""


def fill(rows: Iterator[pa.Table], place: str, batch: int) -> None:
    """A new table of all rows.

    Args:
        rows: of about `batch` rows each, with the vectors in `embedding`.
        place: a directory that is not there.
        batch: rows of one `add`.
    """
    database, table = lancedb.connect(place), None
    for some in rows:
        if table is None:
            table = database.create_table("docs", some)
        else:
            table.add(some)


def count(place: str) -> int:
    """Rows that are there."""
    return int(lancedb.connect(place).open_table("docs").count_rows())
