"""Points: the rows of a snapshot as a store takes them.

A point is named by what its embedding is of, so that whoever writes it again writes it in its own
place, and stamped with what it holds, so that nobody has to read vectors to know whether it has
changed. Vectors are told by where they lie: files are immutable.

    point = uuid5(dataset id, "<modality>/<task>/<id>"), of further parts "<the same>#<part>"
    stamp = BLAKE2b of file and row of the vectors, and of each column of the payload

Legend: N rows, D size of a vector.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from functools import partial
from math import ceil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.index.layout import (
    MULTI,
    NUMBER,
    POINT,
    POINT_TYPE,
    RUN,
    SINGLE,
    STAMP,
    TEXT,
    TIME,
    Layout,
    as_one,
)
from pipeline.index.scoring import cut

ORIGIN_FILE, ORIGIN_ROW = "origin_file", "origin_row"
"""Of each row of a snapshot: where its vectors lie."""
_ABSENT = "-"
"""In the place of the length of a text that is null."""


def point_ids(dataset: str, rows: pa.Table) -> pa.Array:
    """The UUIDs of rows, [N] of 16 bytes each: version 5, RFC 9562.

    Args:
        dataset: its id, 32 hexadecimal digits.
        rows: with `id`, `modality` and `task`.
    """
    ids = as_payload(rows["id"], TEXT)
    texts = [rows["modality"].cast(TEXT), rows["task"].cast(TEXT), ids]
    names = pc.binary_join_element_wise(*texts, "/").cast(pa.binary())
    return _uuids(uuid.UUID(dataset), names.to_pylist())


def first_halves(points: pa.ChunkedArray) -> NDArray[np.uint64]:
    """The first 8 bytes of UUIDs, [N]."""
    octets = octets_of(as_one(points).view(POINT_TYPE), 16)
    return np.ascontiguousarray(octets[:, :8]).view(np.uint64).ravel()


def octets_of(array: pa.Array, width: int) -> NDArray[np.uint8]:
    """[N, width] the bytes of a column of fixed width, without nulls."""
    everything = np.frombuffer(array.buffers()[1] or b"", np.uint8)
    start = array.offset * width
    return everything[start : start + len(array) * width].reshape(-1, width)


def part_ids(points: pa.Array, part: int) -> pa.Array:
    """The UUIDs of the further parts of documents that are split.

    Args:
        points: of the documents.
        part: its number, 1 for the second part; 0 gives the documents' own.
    """
    if not part:
        return points
    suffix = f"#{part}".encode()
    return _uuids(uuid.NAMESPACE_OID, [point + suffix for point in points.to_pylist()])


def _uuids(namespace: uuid.UUID, names: Sequence[bytes]) -> pa.Array:
    # as `uuid.uuid5`, without an object for each
    sha1, begun = partial(hashlib.sha1, usedforsecurity=False), namespace.bytes
    digests = b"".join([sha1(begun + name).digest() for name in names])
    octets = np.frombuffer(digests, np.uint8).reshape(-1, 20)[:, :16].copy()
    octets[:, 6] = octets[:, 6] & 0x0F | 0x50
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    return pa.Array.from_buffers(POINT_TYPE, len(names), [None, pa.py_buffer(octets.tobytes())])


def stamps(rows: pa.Table, layout: Layout) -> NDArray[np.int64]:
    """What changes whenever anything that a point holds does, [N].

    Args:
        rows: with `ORIGIN_FILE`, `ORIGIN_ROW` and the payload.
        layout: of the collection.
    """
    cells = [rows[ORIGIN_FILE].cast(TEXT), rows[ORIGIN_ROW].cast(TEXT)]
    cells += [as_payload(rows[name], kind).cast(TEXT) for name, kind in layout.payload]
    told: list[pa.ChunkedArray] = []
    for texts in cells:
        # with the length before each, no two rows of cells are joined to the same text
        lengths = pc.fill_null(pc.binary_length(texts).cast(TEXT), _ABSENT)
        told += [lengths, pc.fill_null(texts, "")]
    joined = pc.binary_join_element_wise(*told, ":").cast(pa.binary()).to_pylist()
    blake2b = partial(hashlib.blake2b, digest_size=8)
    return np.frombuffer(b"".join([blake2b(cells).digest() for cells in joined]), np.int64)


def points_of(
    rows: pa.Table, ids: pa.Array, layout: Layout, run: int, most: int | None = None
) -> pa.Table:
    """Rows of a snapshot as points, of `layout.schema`; more of them where documents are split.

    Args:
        rows: with the payload, `ORIGIN_FILE`, `ORIGIN_ROW`, and the vectors under the names that
            they have in a collection.
        ids: of the rows.
        layout: of the collection.
        run: that writes them.
        most: vectors that a multi-vector of the store may have; None for no bound.
    """
    schema = layout.schema
    columns = {
        POINT: ids,
        STAMP: pa.array(stamps(rows, layout)),
        RUN: pa.repeat(pa.scalar(run, pa.int64()), rows.num_rows),
    }
    columns |= {name: as_payload(rows[name], kind) for name, kind in layout.payload}
    if layout.single is not None:
        columns[SINGLE] = _cut(rows[SINGLE], layout.single.size)
    if layout.multi is not None:
        columns[MULTI] = rows[MULTI]
        if most is not None and layout.too_long == "pool":
            columns[MULTI] = pooled(as_one(rows[MULTI]), most)
    whole = pa.table(columns, schema=schema)
    if most is None or layout.multi is None or layout.too_long == "pool":
        return whole
    return _split(whole, most)


def as_payload(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """A column as one of the few types that payloads have."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind == TIME:
        # days and nanoseconds; times without a zone are taken for UTC
        return column.cast(pa.timestamp("us"), safe=False).cast(TIME)
    if kind == TEXT and not _is_text(column.type):
        return pa.chunked_array([[_spelt(cell) for cell in column.to_pylist()]], TEXT)
    found = column.cast(kind)
    # JSON has no NaN, and neither have some stores
    return pc.if_else(pc.is_nan(found), None, found) if kind == NUMBER else found


def pooled(multi: pa.ListArray, most: int) -> pa.ListArray:
    """Multi-vectors of which none has more vectors than a store takes.

    Of one that is too long every so many neighbours become their mean, of length one again: the
    sequential pooling of Clavié, Chaffin and Adams, "Reducing the Footprint of Multi-Vector
    Retrieval with Minimal Performance Impact via Token Pooling", 2024.
    """
    lengths = pc.list_value_length(multi).to_numpy(zero_copy_only=False).copy()
    if lengths.max(initial=0) <= most:
        return multi
    kind = multi.type.value_type
    pieces = []
    for at, length in enumerate(lengths.tolist()):
        vectors = multi.slice(at, 1).flatten()
        if length > most:
            numbers_VD = vectors.flatten().to_numpy(zero_copy_only=False).reshape(length, -1)
            means_VD = _means(numbers_VD.astype(np.float32), ceil(length / most))
            flat = pa.array(means_VD.astype(numbers_VD.dtype).ravel())
            vectors = pa.FixedSizeListArray.from_arrays(flat, type=kind)
            lengths[at] = len(means_VD)
        pieces.append(vectors)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.concat_arrays(pieces), type=multi.type)


def _means(vectors_VD: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """The means of every so many neighbours, of length one."""
    means_VD: NDArray[np.float32] = np.add.reduceat(
        vectors_VD, np.arange(0, len(vectors_VD), step), axis=0
    )
    norms_V1 = np.linalg.norm(means_VD, axis=1, keepdims=True)
    # neighbours that cancel each other out are told by the first of them
    return np.where(
        norms_V1 > 0, means_VD / np.where(norms_V1 > 0, norms_V1, 1), vectors_VD[::step]
    )


def parts_of(vectors: NDArray[np.integer], most: int | None) -> NDArray[np.int64]:
    """Into how many points each document is split, [N], given how many vectors each has."""
    if most is None:
        return np.ones(len(vectors), np.int64)
    return np.maximum(1, -(-vectors.astype(np.int64) // most))


def _split(points: pa.Table, most: int) -> pa.Table:
    """Points of which further ones hold the vectors that do not fit the first; single vectors are
    those of the first alone."""
    lengths = pc.list_value_length(points[MULTI]).to_numpy()
    parts = parts_of(lengths, most)
    pieces = [points]
    for part in range(int(parts.max(initial=1))):
        at = pa.array(np.flatnonzero(parts > max(part, 1)))
        if not len(at):
            continue
        some = points.take(at)
        multi = as_one(some[MULTI])
        cut = pc.list_slice(multi, part * most, (part + 1) * most).cast(multi.type)
        some = some.set_column(some.schema.get_field_index(MULTI), some.schema.field(MULTI), cut)
        if part:
            ids = part_ids(as_one(some[POINT]), part)
            some = some.set_column(0, some.schema.field(POINT), ids)
            if SINGLE in some.schema.names:
                where = some.schema.get_field_index(SINGLE)
                nothing = pa.nulls(some.num_rows, some.schema.field(SINGLE).type)
                some = some.set_column(where, some.schema.field(SINGLE), nothing)
        else:
            pieces[0] = points.filter(pa.array(parts == 1))
        pieces.append(some)
    return pa.concat_tables(pieces)


def _cut(column: pa.ChunkedArray, size: int) -> pa.ChunkedArray | pa.FixedSizeListArray:
    """Single vectors of a smaller size."""
    full = column.type.list_size
    if size == full:
        return column
    numbers_ND = as_one(column).flatten().to_numpy(zero_copy_only=False).reshape(-1, full)
    return pa.FixedSizeListArray.from_arrays(pa.array(cut(numbers_ND, size).ravel()), size)


def _is_text(kind: pa.DataType) -> bool:
    """Whether Arrow's own text of a cell is meant."""
    plain = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
    return any(is_of(kind) for is_of in plain)


def _spelt(cell: object) -> str | None:
    if isinstance(cell, bytes):
        return cell.hex()
    if isinstance(cell, list | dict):
        return json.dumps(cell, default=_spelt, ensure_ascii=False)
    return None if cell is None else str(cell)
