"""A Parquet file opened only after its footer was found harmless.

A column of an extension type says, in an Arrow schema inside the footer, which Python class is to
make it, and Arrow calls that class as soon as the file is opened: Ray's own such types have run
code out of a crafted file more than once (CVE-2026-41486). So the Arrow schema is first looked at
as bytes, with the key that announces such a type spelled otherwise, and a file that has one is
refused. A footer may hold that key twice, and readers differ in which of the two they take, so such
a file is refused as well.
"""

import base64
from collections.abc import Iterator
from itertools import count
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError

_MAGIC = b"PAR1"
_SCHEMA = b"ARROW:schema"
_EXTENSION, _EXTENSION_HIDDEN = b"ARROW:extension:name", b"ARROW-extension-name"
_READ_AHEAD = 1 << 20


def open_parquet(stream: BinaryIO, uri: str) -> pq.ParquetFile:
    """Open a file for reading in memory that does not grow with its row groups.

    Checksums of pages are held against their content where the file has them.

    Args:
        stream: the file.
        uri: its name, for messages.

    Raises:
        SourceError: a column is of an extension type, or there is more than one Arrow schema.
        ArrowInvalid: it is not Parquet.
        OSError: without an `errno`: it is encrypted.
    """
    schema = _arrow_schema(stream, uri)
    if _EXTENSION in schema:
        raise SourceError(
            f"{uri} has a column of an extension type ({_named(schema)}), and reading it could run "
            "code; write the column as the plain type that it is stored as"
        )
    # without a buffer, or with one for all columns ahead, a whole row group is held in memory
    return pq.ParquetFile(
        stream, buffer_size=_READ_AHEAD, pre_buffer=False, page_checksum_verification=True
    )


def _arrow_schema(stream: BinaryIO, uri: str) -> bytes:
    """The Arrow schema in the footer, as bytes; empty where there is none."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length > size - 8:
        return b""  # whoever opens it says what is wrong with it
    stream.seek(size - 8 - length)
    footer, hidden = _without_schema(stream.read(length))
    # a footer alone is a file as far as its metadata goes
    metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer + tail)).metadata or {}
    schemas = [metadata[key] for key in hidden if key in metadata]
    if len(schemas) > 1:
        raise SourceError(
            f"{uri} has {len(schemas)} Arrow schemas in its footer, of which one may hide what the "
            "other does; write the file again"
        )
    try:
        return base64.b64decode(schemas[0] if schemas else b"", validate=True)
    except ValueError:
        raise pa.ArrowInvalid("the Arrow schema in its footer is damaged") from None


def _without_schema(footer: bytes) -> tuple[bytes, list[bytes]]:
    """The footer with the schema's key spelled otherwise each time it is there, and how."""
    first, *rest = footer.split(_SCHEMA)
    # spellings that the footer does not hold, or one of its own keys could stand for the schema
    unused = (name for n in count() if (name := b"ARROW%07d" % n) not in footer)
    hidden = [next(unused) for _ in rest]
    spelled = (name + part for name, part in zip(hidden, rest, strict=True))
    return b"".join([first, *spelled]), hidden


def _named(schema: bytes) -> str:
    """The columns of extension types, with the names of the types."""
    harmless = schema.replace(_EXTENSION, _EXTENSION_HIDDEN)
    fields = pa.ipc.read_schema(pa.BufferReader(harmless))
    return ", ".join(
        f"{path!r}: {name.decode(errors='backslashreplace')}"
        for path, name in _extensions(fields, "")
    )


def _extensions(fields: pa.Schema | pa.DataType, prefix: str) -> Iterator[tuple[str, bytes]]:
    """(path, name of the type) of every field that has one, nested ones too."""
    count = len(fields) if isinstance(fields, pa.Schema) else fields.num_fields
    for field in map(fields.field, range(count)):
        path = f"{prefix}{field.name}"
        name = (field.metadata or {}).get(_EXTENSION_HIDDEN)
        if name is not None:
            yield path, name
        yield from _extensions(field.type, f"{path}.")
