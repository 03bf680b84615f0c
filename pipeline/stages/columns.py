"""Columns: the types that all shards of a source agree on."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.shards.shape import Inspected, agree


def agreed_id(shards: Iterable[tuple[str, Inspected]]) -> pa.DataType:
    """The type of every id.

    Args:
        shards: the URL of each, and what was found in it.

    Raises:
        SourceError: two of them have ids that are not one type.
    """
    id_type = pa.null()
    for uri, found in shards:
        agreed = _agree(id_type, found.id_type, "source.id", uri)
        widened = not pa.types.is_null(id_type) and id_type != agreed
        if pa.types.is_floating(agreed) and (widened or not pa.types.is_floating(found.id_type)):
            # whole numbers made floating would no longer be the ids they were
            raise SourceError(f"source.id is {found.id_type} in {uri}, and {id_type} elsewhere")
        id_type = agreed
    return _or_string(id_type)


def agreed_columns(shards: Iterable[tuple[str, Inspected, Sequence[str]]]) -> tuple[pa.Field, ...]:
    """The columns that are kept.

    Args:
        shards: the URL of each, what was found in it, and the columns of it that are kept.

    Raises:
        SourceError: two of them have columns of one name that are not one type.
    """
    kept: dict[str, pa.DataType] = {}
    for uri, found, columns in shards:
        for column in columns:
            what, there = f"source.keep: {column!r}", kept.get(column, pa.null())
            kept[column] = _agree(there, found.kept[column], what, uri)
    return tuple(pa.field(name, _or_string(kind)) for name, kind in kept.items())


def _agree(one: pa.DataType, other: pa.DataType, what: str, shard: str) -> pa.DataType:
    agreed = agree(one, other)
    if agreed is None:
        raise SourceError(f"{what} is {other} in {shard}, and {one} in the shards before it")
    return agreed


def _or_string(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_null(kind) else kind
