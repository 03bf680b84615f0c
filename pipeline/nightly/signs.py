"""Signs: when two rows are the same, in 16 bytes each.

A row's sign is of all that a snapshot says of it, its vectors apart, and of the shard it is in:
rows with one sign need nothing done. Its content is what its vectors are made from, given the
fingerprint: an item with a content that was embedded needs no model. Its name is what a user knows
it by, and a part of its sign: rows of one sign have one name. Two different things of one sign
among 10 billion are less likely than 1 in 10 to the 18.

A name and a sign are one call of blake2b each, which is what comparing a row costs; a content is
made without, from half of the sha256 that is there. Nothing of this is ever stored.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_BYTES = 16
SIGN = pa.binary(_BYTES)
SIGNS = pa.schema([pa.field("sign", SIGN), pa.field("content", SIGN), pa.field("name", SIGN)])


def signs(
    shard: str,
    schema: pa.Schema,
    ids: pa.Array,
    tasks: pa.Array,
    modalities: pa.Array,
    source_hashes: pa.Array,
    kept: Sequence[pa.Array],
) -> pa.Table:
    """The signs of some rows of a shard, a table of `SIGNS`.

    Args:
        shard: its key.
        schema: of the snapshot's rows: a value of another type is another value.
        ids: one for each row.
        tasks: likewise.
        modalities: likewise.
        source_hashes: likewise, of 32 bytes.
        kept: the kept columns, in the order of the schema.
    """
    typed = shard + "".join(f"\n{field.name} {field.type}" for field in own_fields(schema))
    shared = _digest(_encoded(typed))
    names = _names(ids, tasks, modalities)
    rows = zip(*map(values_of, kept), strict=True) if kept else repeat(())
    # all but the last are of one length, so that no two rows run into one another
    parts = zip(names, source_hashes.to_pylist(), map(repr, rows), strict=False)
    of_rows = [_digest(shared + name + found + _encoded(row)) for name, found, row in parts]
    columns = [_column(of_rows), contents_of(tasks, source_hashes), _column(names)]
    return pa.table(columns, schema=SIGNS)


def _names(ids: pa.Array, tasks: pa.Array, modalities: pa.Array) -> list[bytes]:
    pairs = list(zip(tasks.to_pylist(), modalities.to_pylist(), strict=True))
    shared = {pair: _digest(_encoded(repr(pair))) for pair in set(pairs)}
    spelled = map(_plain, values_of(ids))
    return [
        _digest(shared[pair] + _encoded(text)) for pair, text in zip(pairs, spelled, strict=True)
    ]


def values_of(array: pa.Array) -> list[Any]:
    """Values with a spelling each; times are whole numbers, since not all are one of Python's."""
    kind = array.type
    if pa.types.is_struct(kind):
        parts = [values_of(part) for part in array.flatten()]
        rows = zip(*parts, strict=True) if parts else repeat((), len(array))
        there = array.is_valid().to_pylist()
        return [row if valid else None for row, valid in zip(rows, there, strict=True)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner, first = values_of(array.flatten()), 0
        lists: list[Any] = []
        for length in pc.list_value_length(array).to_pylist():
            lists.append(None if length is None else inner[first : first + length])
            first += length or 0
        return lists
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        array = array.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    return list(array.to_pylist())


def own_fields(schema: pa.Schema) -> list[pa.Field]:
    """The fields that a source decides: the id, and the kept columns."""
    kept = schema.names[3 : schema.names.index("n_tokens")]
    return [schema.field(name) for name in ("id", *kept)]


def contents_of(tasks: pa.Array, source_hashes: pa.Array) -> pa.Array:
    """What vectors of some rows are made from, given the fingerprint: content, and for which task.

    Args:
        tasks: one for each row.
        source_hashes: likewise; half of a sha256 tells contents apart, and a mask of each task the
            tasks.
    """
    coded = tasks.dictionary_encode()
    masks = [_digest(_encoded(task)) for task in coded.dictionary.to_pylist()]
    masks_TB = np.frombuffer(b"".join(masks), np.uint8).reshape(-1, _BYTES)
    hashes_RB = fixed_bytes(source_hashes)[:, :_BYTES]
    return _as_column(hashes_RB ^ masks_TB[coded.indices.to_numpy()])


def content_of(task: str, source_hash: bytes) -> bytes:
    """The content of one row, as of `contents_of`."""
    mask = _digest(_encoded(task))
    return bytes(a ^ b for a, b in zip(source_hash[:_BYTES], mask, strict=True))


def fixed_bytes(array: pa.Array) -> NDArray[np.uint8]:
    """The bytes of a column of one width, without a copy, [rows, width]; of a null whatever."""
    width = array.type.byte_width
    if not len(array):
        return np.empty((0, width), np.uint8)
    data = np.frombuffer(array.buffers()[1], np.uint8)
    return data[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)


def _as_column(bytes_RB: NDArray[np.uint8]) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(bytes_RB))
    return pa.FixedSizeBinaryArray.from_buffers(SIGN, len(bytes_RB), [None, data])


def _column(digests: Iterable[bytes]) -> pa.Array:
    data = b"".join(digests)
    return pa.FixedSizeBinaryArray.from_buffers(
        SIGN, len(data) // _BYTES, [None, pa.py_buffer(data)]
    )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_BYTES).digest()


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _plain(value: Any) -> str:
    """So that no two values of one type are the same."""
    return f"{type(value).__name__} {value!r}"
