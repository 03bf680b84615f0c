"""Arrow columns as a shard has them, to columns every later step can take.

Dictionaries and views are made plain. Text is checked cell by cell when a column is found to hold
bytes that are not UTF-8: such a file reads well and fails much later, a whole column at once.
"""

import pyarrow as pa

_VIEWS = {"string_view": pa.string(), "binary_view": pa.binary()}


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without dictionary or view."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    return _VIEWS.get(str(kind), kind)


def plain(array: pa.Array) -> pa.Array:
    """The column without dictionary or view."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(plain_type(array.type))


def valid_text(array: pa.Array) -> tuple[pa.Array, frozenset[int]]:
    """The column with null for each text that is not UTF-8, and the indices of those."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        if not is_text(array.type):
            raise
        return _without_invalid(array)
    return array, frozenset()


def is_text(kind: pa.DataType) -> bool:
    """Whether cells are strings, of whichever width."""
    return str(kind) in ("string", "large_string", "string_view")


def is_bytes(kind: pa.DataType) -> bool:
    """Whether cells are bytes, of whichever width."""
    return str(kind) in ("binary", "large_binary", "binary_view")


def _without_invalid(array: pa.Array) -> tuple[pa.Array, frozenset[int]]:
    texts: list[str | None] = []
    invalid = set()
    for index, cell in enumerate(array.cast(pa.large_binary()).to_pylist()):
        try:
            texts.append(None if cell is None else cell.decode())
        except UnicodeDecodeError:
            texts.append(None)
            invalid.add(index)
    return pa.array(texts, array.type), frozenset(invalid)
