"""The Arrow schemas that cross a border: source row, prepared item, embedding row, quarantine row.

A row that cannot be embedded is never dropped on the way: it travels on with its reason, and the
schema is the same with and without such rows. The user's kept columns travel as one struct, so
their names cannot collide with ours before the output, where a collision is refused.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline.errors import SpecError

HASH = pa.binary(32)
VECTOR_FILE, VECTOR_ROW = "vector_file", "vector_row"
RESERVED = (
    "id",
    "modality",
    "task",
    "n_tokens",
    "truncated",
    "source_hash",
    "embedding",
    "multivector",
    VECTOR_FILE,
    VECTOR_ROW,
)
"""Columns of the output that are ours, and of its files of links."""

FAULT = (
    pa.field("reason", pa.string()),
    pa.field("stage", pa.string()),
    pa.field("message", pa.string()),
)
"""Null while a row is well."""


def source_schema(id_type: pa.DataType, kept: Sequence[pa.Field]) -> pa.Schema:
    """Rows as read: one for each row of the source, nothing decoded."""
    return pa.schema(
        [
            pa.field("row", pa.int64(), nullable=False),
            pa.field("locator", pa.string(), nullable=False),
            pa.field("id", id_type),
            pa.field("task", pa.string()),
            pa.field("text", pa.large_binary()),
            pa.field("image", pa.large_binary()),
            pa.field("kept", pa.struct(list(kept))),
            *FAULT,
        ]
    )


def prepared_schema(id_type: pa.DataType, kept: Sequence[pa.Field]) -> pa.Schema:
    """Items ready for the network: one for each embedding a row asks for."""
    return pa.schema(
        [
            *_item_fields(id_type, kept),
            pa.field("token_ids", pa.list_(pa.int32())),
            pa.field("truncated", pa.bool_()),
            pa.field("pixels", pa.large_binary()),
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            *FAULT,
        ]
    )


def embedded_schema(
    id_type: pa.DataType, kept: Sequence[pa.Field], vectors: Sequence[pa.Field]
) -> pa.Schema:
    """Items with their vectors, the faulty ones among them."""
    return pa.schema(
        [
            *_item_fields(id_type, kept),
            pa.field("n_tokens", pa.int32()),
            pa.field("truncated", pa.bool_()),
            *vectors,
            *FAULT,
        ]
    )


def _item_fields(id_type: pa.DataType, kept: Sequence[pa.Field]) -> list[pa.Field]:
    return [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("id", id_type),
        pa.field("modality", pa.string()),
        pa.field("task", pa.string()),
        pa.field("source_hash", HASH),
        pa.field("kept", pa.struct(list(kept))),
    ]


def vector_fields(
    *, dim: int | Sequence[int] | None, single_dtype: str, multi_dim: int | None, multi_dtype: str
) -> list[pa.Field]:
    """`embedding` and `multivector`, those of them that are asked for.

    Args:
        dim: size of a single vector; a list for a column each, named `embedding_<size>`; None for
            no single vectors.
        single_dtype: float32 or float16.
        multi_dim: size of each vector of a multi-vector; None for no multi-vectors.
        multi_dtype: float32 or float16.
    """
    if dim is None:
        sizes = {}
    elif isinstance(dim, int):
        sizes = {"embedding": dim}
    else:
        sizes = {f"embedding_{size}": size for size in dim}
    fields = [pa.field(n, pa.list_(_float(single_dtype), size)) for n, size in sizes.items()]
    if multi_dim is not None:
        inner = pa.list_(_float(multi_dtype), multi_dim)
        fields.append(pa.field("multivector", pa.list_(inner)))
    return fields


def output_schema(
    id_type: pa.DataType,
    kept: Sequence[pa.Field],
    vectors: Sequence[pa.Field],
    metadata: Mapping[str, str],
) -> pa.Schema:
    """The dataset's schema.

    Raises:
        SpecError: a kept column has the name of one of ours.
    """
    taken = dict.fromkeys((*RESERVED, *(field.name for field in vectors)))
    for field in kept:
        if field.name in taken:
            raise SpecError(
                f"source.keep: {field.name!r} is a column of the output itself; the names taken "
                f"are {', '.join(taken)}"
            )
    return pa.schema(
        [
            pa.field("id", id_type),
            pa.field("modality", pa.string()),
            pa.field("task", pa.string()),
            *kept,
            pa.field("n_tokens", pa.int32()),
            pa.field("truncated", pa.bool_()),
            pa.field("source_hash", HASH),
            *vectors,
        ],
        metadata=dict(metadata),
    )


def vector_columns(schema: pa.Schema) -> list[str]:
    """The columns of an output schema that hold vectors."""
    return list(schema.names[schema.names.index("source_hash") + 1 :])


def single_types(schema: pa.Schema) -> dict[str, pa.FixedSizeListType]:
    """The types of the columns of an output schema that hold a single vector each."""
    types = {name: schema.field(name).type for name in vector_columns(schema)}
    return {name: kind for name, kind in types.items() if pa.types.is_fixed_size_list(kind)}


def largest_single(schema: pa.Schema) -> str | None:
    """The column of the largest single vector; None when there is none."""
    types = single_types(schema)
    return max(types, key=lambda name: types[name].list_size, default=None)


def quarantine_schema(id_type: pa.DataType) -> pa.Schema:
    """Rows that were not embedded."""
    return pa.schema(
        [
            pa.field("row", pa.int64(), nullable=False),
            pa.field("id", id_type),
            pa.field("modality", pa.string()),
            pa.field("task", pa.string()),
            pa.field("locator", pa.string()),
            pa.field("source_hash", HASH),
            *FAULT,
        ]
    )


def difference(here: pa.Schema, there: pa.Schema) -> str | None:
    """What differs between two output schemas, in words; None when nothing does."""
    names = dict.fromkeys([*here.names, *there.names])
    for name in names:
        ours, theirs = here.get_field_index(name), there.get_field_index(name)
        if ours < 0 or theirs < 0:
            where = "only this job" if theirs < 0 else "only the dataset"
            return f"{where} has the column {name!r}"
        if here.field(name).type != there.field(name).type:
            return (
                f"column {name!r} is {there.field(name).type} in the dataset, and "
                f"{here.field(name).type} in this job"
            )
    return None


def _float(dtype: str) -> pa.DataType:
    return {"float32": pa.float32(), "float16": pa.float16()}[dtype]
