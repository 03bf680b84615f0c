"""Points as rows of PostgreSQL's binary COPY, packed column by column.

    row    int16 fields, then of each field int32 length (-1 for null) and that many bytes
    vector int16 size, int16 zero, big-endian numbers
    array  int32 dimensions, int32 nulls, int32 oid, int32 length, int32 first, then the elements

Source: PostgreSQL's documentation of COPY, and `vector_send` and `array_send` of the servers.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from psycopg import Connection, sql

from pipeline.index.layout import MULTI, NUMBER, POINT, SINGLE, TEXT, TIME, TRUTH, as_one

_START = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_EPOCH = 946_684_800_000_000
"""Microseconds from 1970, where Arrow's times begin, to 2000, where those of PostgreSQL do."""
_ROWS = 500
"""Written at a time."""


def copy_points(connection: "Connection[Any]", to: str, points: pa.Table) -> None:
    """Write points into a table that has no row with their keys.

    Args:
        connection: that knows the types `vector` and `halfvec`.
        to: the table.
        points: to be written.
    """
    names = sql.SQL(", ").join(map(sql.Identifier, points.schema.names))
    query = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT binary)").format(
        sql.Identifier(to), names
    )
    types = connection.adapters.types
    with connection.cursor().copy(query) as copy:
        copy.write(_START)
        for rows in packed(points, {name: types[name].oid for name in ("vector", "halfvec")}):
            copy.write(rows)
        copy.write(_END)


def packed(points: pa.Table, oids: Mapping[str, int]) -> Iterator[bytes]:
    """The rows of some points.

    Args:
        points: to be written.
        oids: of the types `vector` and `halfvec`.
    """
    for start in range(0, points.num_rows, _ROWS):
        some = points.slice(start, _ROWS)
        head = np.full(some.num_rows, len(some.column_names), ">i2").view(np.uint8)
        pieces: list[Sequence[bytes | memoryview]] = []
        # cells that lie side by side are joined by Arrow, all rows at once
        joined = [_fixed(head.reshape(-1, 2))]
        for name in some.column_names:
            column = as_one(some[name])
            if name not in (SINGLE, MULTI):
                joined.append(_cells(name, column))
                continue
            pieces += [_joined(joined)] if joined else []
            pieces.append(_vector_cells(name, column, oids))
            joined = []
        pieces += [_joined(joined)] if joined else []
        yield b"".join(chain.from_iterable(zip(*pieces, strict=True)))


def _cells(name: str, column: pa.Array) -> pa.Array:
    """Of each row the cell behind its length, as binary."""
    kind = column.type
    if kind == TEXT:
        lengths = pc.fill_null(pc.binary_length(column), -1).to_numpy().astype(">i4")
        heads = _fixed(lengths.view(np.uint8).reshape(-1, 4))
        return pc.binary_join_element_wise(heads, pc.fill_null(column, "").cast(pa.binary()), b"")
    if name == POINT:
        octets = np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, 16)
    elif kind == TRUTH:
        octets = pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(np.uint8)
    else:
        numbers = pc.fill_null(column.cast(pa.int64()) if kind == TIME else column, 0).to_numpy()
        shifted = numbers - _EPOCH if kind == TIME else numbers
        octets = shifted.astype(">f8" if kind == NUMBER else ">i8").view(np.uint8)
    octets = octets.reshape(len(column), -1)
    heads = np.full(len(column), octets.shape[1], ">i4").view(np.uint8).reshape(-1, 4)
    cells = _fixed(np.hstack([heads, octets]))
    return pc.if_else(column.is_valid(), cells, _NULL) if column.null_count else cells


def _fixed(octets: NDArray[np.uint8]) -> pa.Array:
    """[N, bytes] as binary."""
    flat = pa.py_buffer(np.ascontiguousarray(octets))
    kind = pa.binary(octets.shape[1])
    return pa.Array.from_buffers(kind, len(octets), [None, flat]).cast(pa.binary())


def _joined(cells: Sequence[pa.Array]) -> list[bytes]:
    """Of each row its cells, one after the other."""
    found: list[bytes] = pc.binary_join_element_wise(*cells, b"").to_pylist()
    return found


def _vector_cells(
    name: str, column: pa.Array, oids: Mapping[str, int]
) -> Sequence[bytes | memoryview]:
    """Of each row the vector, or the array of them."""
    # views: a copy of each vector costs as much as all the rest
    cells: Sequence[bytes | memoryview] = (
        _arrays(column, oids)
        if name == MULTI
        else [memoryview(vector) for vector in _vectors(column)]
    )
    if not column.null_count:
        return cells
    valid = column.is_valid().to_pylist()
    return [cell if there else _NULL for cell, there in zip(cells, valid, strict=True)]


def _vectors(column: pa.FixedSizeListArray) -> NDArray[np.uint8]:
    """[V, bytes] vectors as the server takes them, each behind its length."""
    size = column.type.list_size
    start = column.offset * size
    numbers = column.values.slice(start, len(column) * size).to_numpy(zero_copy_only=False)
    kind = numbers.dtype.newbyteorder(">")
    octets = 4 + size * kind.itemsize
    head = np.frombuffer(struct.pack(">ihh", octets, size, 0), kind)
    cells = np.empty((len(column), len(head) + size), kind)
    cells[:, : len(head)] = head
    cells[:, len(head) :] = numbers.reshape(-1, size)
    return cells.view(np.uint8)


def _arrays(column: pa.ListArray, oids: Mapping[str, int]) -> list[bytes | memoryview]:
    """Of each row the array of its vectors."""
    flat = column.flatten()
    oid = oids["halfvec" if flat.type.value_type == pa.float16() else "vector"]
    vectors = _vectors(flat)
    ends = np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy())
    cells: list[bytes | memoryview] = []
    start = 0
    for end in ends.tolist():
        head = struct.pack(">iiiii", 1, 0, oid, end - start, 1)
        cells.append(_sized(head + vectors[start:end].tobytes()))
        start = end
    return cells


def _sized(cell: bytes) -> bytes:
    return struct.pack(">i", len(cell)) + cell
