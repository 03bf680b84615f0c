"""Signs: when two rows are the same, in 16 bytes each.

A row's sign is of all that a snapshot says of it, its vectors apart, and of the shard it is in:
rows with one sign need nothing done. Its content is what its vectors are made from, given the
fingerprint: an item with a content that was embedded needs no model. Its name is what a user knows
it by. Half of a sha256 would do as well; blake2b is twice as fast. Two different things of
one sign among 10 billion are less likely than 1 in 10 to the 18.
"""

import hashlib
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

SIGN = pa.binary(16)
SIGNS = pa.schema([pa.field("sign", SIGN), pa.field("content", SIGN), pa.field("name", SIGN)])


def signs(
    shard: str,
    schema: pa.Schema,
    ids: pa.Array,
    tasks: Sequence[str],
    modalities: Sequence[str],
    source_hashes: Sequence[bytes],
    kept: Sequence[pa.Array],
) -> pa.Table:
    """The signs of some rows of a shard.

    Args:
        shard: its key.
        schema: of the snapshot's rows: a value of another type is another value.
        ids: one for each row.
        tasks: likewise.
        modalities: likewise.
        source_hashes: likewise.
        kept: the kept columns, in the order of the schema.
    """
    typed = shard + "".join(f"\n{field.name} {field.type}" for field in own_fields(schema))
    spelled = map(_plain, values_of(ids))
    names = [_digest(*parts) for parts in zip(tasks, modalities, spelled, strict=True)]
    contents = list(map(content_of, tasks, source_hashes))
    rows = zip(*map(values_of, kept), strict=True) if kept else repeat(())
    of_rows = zip(repeat(typed), names, source_hashes, map(repr, rows), strict=False)
    columns = [[_digest(*parts) for parts in of_rows], contents, names]
    return pa.table([pa.array(column, SIGN) for column in columns], schema=SIGNS)


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


def content_of(task: str, source_hash: bytes) -> bytes:
    """What vectors are made from, given the fingerprint: the content, and for which task."""
    return _digest(task, source_hash)


def _digest(*parts: str | bytes) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode(errors="surrogatepass")
        # with its length, so that no two lists of parts are one
        found.update(b"%d " % len(data))
        found.update(data)
    return found.digest()


def _plain(value: Any) -> str:
    """So that no two values of one type are the same."""
    return f"{type(value).__name__} {value!r}"
