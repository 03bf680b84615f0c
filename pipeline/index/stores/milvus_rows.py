"""Points as the columns of Milvus's messages, and conditions in its language.

Vectors go through as bytes: what protobuf writes of packed numbers is what numpy holds, while the
client's rows of Python numbers take many times as long.

Legend: N points, D size of a vector.
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pymilvus import DataType
from pymilvus.grpc_gen import schema_pb2

from pipeline.index.filters import All, Comparison, Condition, Constant, OneOf
from pipeline.index.layout import POINT, POINT_TYPE, SINGLE, TEXT, TIME, WHOLE, as_one
from pipeline.index.store import Refused
from pipeline.index.stores.milvus_schema import COLUMNS, DIGITS, TEXT_BYTES

_DATA = {
    DataType.VARCHAR: "string_data",
    DataType.INT64: "long_data",
    DataType.DOUBLE: "double_data",
    DataType.BOOL: "bool_data",
}
_PACKED = b"\x0a"
"""Before packed numbers that are a message's first field, and their bytes' number."""
_ESCAPED = str.maketrans(
    {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"},
)


def keys_of(points: pa.Array | pa.ChunkedArray) -> list[str]:
    """UUIDs, [N], as their keys."""
    digits = b"".join(points.to_pylist()).hex()
    return [digits[at : at + DIGITS] for at in range(0, len(digits), DIGITS)]


def messages_of(points: pa.Table, keys: Sequence[str]) -> list[schema_pb2.FieldData]:
    """The columns of a request.

    Args:
        points: [N], of a layout's schema.
        keys: theirs.

    Raises:
        Refused: a text is longer than Milvus takes.
    """
    messages = [_scalars(POINT, DataType.VARCHAR, keys)]
    for field in points.schema.remove(0):
        column = as_one(points[field.name])
        if field.name == SINGLE:
            messages.append(_vectors(column))
            continue
        if field.type == TEXT:
            _demand_short(field.name, column)
        values = column.view(WHOLE) if field.type == TIME else column
        message = _scalars(field.name, COLUMNS[field.type], values.drop_null().to_pylist())
        if field.nullable:
            message.valid_data.extend(column.is_valid().to_pylist())
        messages.append(message)
    return messages


def table_of(messages: Sequence[schema_pb2.FieldData], schema: pa.Schema) -> pa.Table:
    """Columns of an answer as a table of points, or of some of their columns."""
    by_name = {message.field_name: message for message in messages}
    return pa.table([_column(by_name[field.name], field.type) for field in schema], schema=schema)


def payload_of(entity: Mapping[str, Any], types: Mapping[str, pa.DataType]) -> dict[str, Any]:
    """A point that was found, as others tell it."""
    plain = {name: entity[name] for name in types}
    for name, kind in types.items():
        if kind == TIME and plain[name] is not None:
            plain[name] = pa.scalar(plain[name], TIME).as_py()
    return plain


def named(keys: Sequence[str]) -> str:
    """The points with these keys, as a condition."""
    return f"{POINT} in [{', '.join(map(_literal, keys))}]"


def expression(condition: Condition) -> str:
    """A condition in the language of Milvus, which does not agree with itself about nulls."""
    if isinstance(condition, Comparison):
        compared = f"{condition.column} {condition.operator} {_literal(condition.value)}"
        return _known(compared, condition.column) if condition.operator == "!=" else compared
    if isinstance(condition, OneOf):
        values = ", ".join(map(_literal, condition.values))
        if condition.is_negated:
            return _known(f"{condition.column} not in [{values}]", condition.column)
        return f"{condition.column} in [{values}]"
    joined = " and " if isinstance(condition, All) else " or "
    return joined.join(f"({expression(part)})" for part in condition.parts)


def _known(text: str, column: str) -> str:
    return f"({text}) and {column} is not null"


def _literal(value: Constant) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        return str(pa.scalar(value, TIME).value)
    return f'"{value.translate(_ESCAPED)}"' if isinstance(value, str) else repr(value)


def _scalars(name: str, kind: DataType, values: Sequence[Any]) -> schema_pb2.FieldData:
    message = schema_pb2.FieldData(type=kind, field_name=name)
    getattr(message.scalars, _DATA[kind]).data.extend(values)
    return message


def _vectors(column: pa.FixedSizeListArray) -> schema_pb2.FieldData:
    numbers = column.flatten().to_numpy(zero_copy_only=False).astype("<f4", copy=False)
    octets = numbers.tobytes()
    message = schema_pb2.FieldData(type=DataType.FLOAT_VECTOR, field_name=SINGLE)
    message.vectors.dim = column.type.list_size
    message.vectors.float_vector.MergeFromString(_PACKED + _varint(len(octets)) + octets)
    return message


def _varint(number: int) -> bytes:
    """As protobuf writes it, 7 bits at a time, the lowest first."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def _demand_short(name: str, texts: pa.Array) -> None:
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    if longest > TEXT_BYTES:
        raise Refused(f"{name} has {longest:,} bytes, and Milvus takes {TEXT_BYTES:,}")


def _column(message: schema_pb2.FieldData, kind: pa.DataType) -> pa.Array:
    if message.type == DataType.FLOAT_VECTOR:
        flat = pa.array(_numbers(message).astype(kind.value_type.to_pandas_dtype(), copy=False))
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    cells = list(getattr(message.scalars, _DATA[DataType(message.type)]).data)
    if kind == POINT_TYPE:
        return pa.array([bytes.fromhex(cell) for cell in cells], POINT_TYPE)
    valid = np.array(message.valid_data, bool)
    stored = WHOLE if kind == TIME else kind
    return pa.array(cells, stored, mask=~valid if len(valid) else None).view(kind)


def _numbers(message: schema_pb2.FieldData) -> NDArray[np.float32]:
    """[N * D] of a column of vectors."""
    octets = message.vectors.float_vector.SerializeToString()
    count = 4 * len(message.vectors.float_vector.data)
    return np.frombuffer(octets, "<f4", offset=len(octets) - count)
