"""The layout of a collection: what each of its points holds, as Arrow types.

    nightjar_point   UUID of the embedding: `points.point_ids`
    nightjar_stamp   changes whenever anything that the point holds does: `points.stamps`
    nightjar_run     the backfill that wrote it: a later one is never overwritten by an earlier
    id, modality, task, and the payload: the columns of the dataset that are carried along
    single, multi    the vectors

Types of the payload are made few, so that every store has them: texts, whole numbers, numbers,
truth values and times. What is nested is carried as JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from pipeline.errors import CollectionError, SpecError
from pipeline.index.spec import VectorStoreSpec
from pipeline.schema import largest_single, vector_columns

POINT, STAMP, RUN = "nightjar_point", "nightjar_stamp", "nightjar_run"
SINGLE: Final = "single"
MULTI: Final = "multi"
IDENTITY = ("id", "modality", "task")
"""Columns that every point has, and that tell its embedding from any other."""
OWN = (POINT, STAMP, RUN)
POINT_TYPE = pa.binary(16)
TIME = pa.timestamp("us", "UTC")
TEXT, WHOLE, NUMBER, TRUTH = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_NAMES = {TEXT: "text", WHOLE: "whole", NUMBER: "number", TRUTH: "truth", TIME: "time"}


@dataclass(frozen=True, kw_only=True)
class VectorType:
    """Vectors of a kind."""

    size: int
    """Numbers of each."""
    dtype: str
    """float32 or float16, as the dataset has them."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What each point of a collection holds."""

    single: VectorType | None
    """The single vector; None for none."""
    multi: VectorType | None
    """The multi-vector; None for none."""
    payload: tuple[tuple[str, pa.DataType], ...]
    """Columns with their types, `id`, `modality` and `task` the first of them."""
    indexed: tuple[str, ...]
    """Those that filters find fast."""
    approximate: bool
    """Whether the store has an index that approximates the nearest single vectors."""
    too_long: str = "pool"
    """What becomes of more vectors than a point of the store holds: `pool` or `split`."""

    @property
    def vectors(self) -> dict[str, VectorType]:
        """By name."""
        named = {SINGLE: self.single, MULTI: self.multi}
        return {name: kind for name, kind in named.items() if kind is not None}

    @property
    def schema(self) -> pa.Schema:
        """Of a table of points."""
        fields = [
            pa.field(POINT, POINT_TYPE, nullable=False),
            pa.field(STAMP, pa.int64(), nullable=False),
            pa.field(RUN, pa.int64(), nullable=False),
            *(pa.field(name, kind) for name, kind in self.payload),
        ]
        if self.single is not None:
            fields.append(pa.field(SINGLE, _vector(self.single)))
        if self.multi is not None:
            fields.append(pa.field(MULTI, pa.list_(_vector(self.multi))))
        return pa.schema(fields)

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"payload": [[name, _NAMES[kind]] for name, kind in self.payload]}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Layout":
        """The layout that was made so.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        types = {name: kind for kind, name in _NAMES.items()}
        vectors = {name: plain[name] and VectorType(**plain[name]) for name in (SINGLE, MULTI)}
        payload = tuple((name, types[kind]) for name, kind in plain["payload"])
        return cls(**plain | vectors | {"payload": payload, "indexed": tuple(plain["indexed"])})


def layout_of(schema: pa.Schema, spec: VectorStoreSpec) -> Layout:
    """The layout that a spec asks for of a dataset.

    Args:
        schema: of the dataset.
        spec: of the collection.

    Raises:
        SpecError: the dataset has no such column, vectors or size.
    """
    names = _payload_names(schema, spec.payload)
    payload = tuple((name, payload_type(schema.field(name).type)) for name in names)
    for name in spec.index:
        if name not in names:
            raise SpecError(
                f"store.index: {name!r} is no column of the payload; those are {', '.join(names)}"
            )
    return Layout(
        single=_single(schema, spec) if SINGLE in spec.vectors else None,
        multi=_multi(schema) if MULTI in spec.vectors else None,
        payload=payload,
        indexed=tuple(spec.index),
        approximate=spec.vector_index,
        too_long=spec.too_long,
    )


def kept_columns(schema: pa.Schema) -> list[str]:
    """The columns of a dataset that its sources had kept."""
    return list(schema.names[len(IDENTITY) : schema.names.index("n_tokens")])


def _payload_names(schema: pa.Schema, asked: Sequence[str] | None) -> list[str]:
    there = [name for name in schema.names if name not in vector_columns(schema)]
    for name in asked or ():
        if name not in there:
            raise SpecError(
                f"store.payload: the dataset has no column {name!r}; it has {', '.join(there)}"
            )
    names = list(dict.fromkeys([*IDENTITY, *(kept_columns(schema) if asked is None else asked)]))
    for name in names:
        if name in (*OWN, SINGLE, MULTI):
            raise SpecError(
                f"store.payload: {name!r} is a name of a point's own; leave it out of the payload, "
                "or keep the column under another name"
            )
    return names


def payload_type(kind: pa.DataType) -> pa.DataType:
    """What a column of a dataset is carried as."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return TRUTH
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return WHOLE
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return NUMBER
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return TIME
    # bytes as hexadecimal digits, and what is nested as JSON
    return TEXT


def _single(schema: pa.Schema, spec: VectorStoreSpec) -> VectorType:
    column = largest_single(schema)
    if column is None:
        raise SpecError("store.vectors: the dataset has no single vectors; name multi alone")
    kind = schema.field(column).type
    if spec.dim is not None and spec.dim > kind.list_size:
        raise SpecError(
            f"store.dim: {spec.dim} is more than the {kind.list_size} numbers of the dataset's "
            "single vectors"
        )
    return VectorType(size=spec.dim or kind.list_size, dtype=dtype_name(kind.value_type))


def _multi(schema: pa.Schema) -> VectorType:
    if "multivector" not in schema.names:
        raise SpecError("store.vectors: the dataset has no multi-vectors; name single alone")
    kind = schema.field("multivector").type.value_type
    return VectorType(size=kind.list_size, dtype=dtype_name(kind.value_type))


def _vector(kind: VectorType) -> pa.DataType:
    return pa.list_({"float32": pa.float32(), "float16": pa.float16()}[kind.dtype], kind.size)


def dtype_name(kind: pa.DataType) -> str:
    """Of the numbers of vectors, as a spec spells it."""
    return {pa.float32(): "float32", pa.float16(): "float16"}[kind]


def as_one(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, copied only where it is in pieces; Arrow copies a single one too."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def differing(
    collection: str, *, wanted: Mapping[str, object], there: Mapping[str, object]
) -> CollectionError:
    """A collection that cannot take these points, told by what is not as it should be.

    Args:
        collection: its name.
        wanted: what the layout asks for, by what it is of.
        there: what the store says, likewise.
    """
    wrong = [
        f"{name} is {there.get(name, 'absent')}, not {value}"
        for name, value in wanted.items()
        if there.get(name) != value
    ] + [f"{name} is {there[name]}, not asked for" for name in there.keys() - wanted.keys()]
    return CollectionError(
        f"collection {collection!r} is not what the spec asks for: {'; '.join(wrong)}; `--beside` "
        "fills a new one and gives readers that"
    )
