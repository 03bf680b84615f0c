"""A snapshot copied out for tools that want Parquet or Lance.

Every fragment's sha256 is checked before its rows are passed on. In Parquet the multi-vectors are
`list<fixed_size_binary>`, each vector its raw little-endian numbers: nested floats take about ten
times the CPU to write and read there. The column's metadata says how to get the numbers back. The
marker file is written last, so a destination without it is not whole.
"""

import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import Dataset
from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.storage import list_objects

MARKER = "_snapshot.json"
"""Underscored, so that readers of a whole directory pass it over."""


def to_parquet(dataset: Dataset, destination: str) -> int:
    """Write one Parquet file for each fragment and return the row count.

    Raises:
        OutputError: the destination is not empty, or a fragment is damaged.
    """
    _demand_empty(destination)
    folder = Folder(destination)
    written: list[str] = []
    try:
        for index, table in enumerate(_tables(dataset)):
            written.append(f"part-{index:05}.parquet")
            folder.put(written[-1], _parquet_bytes(table))
        folder.put(MARKER, _marker(dataset))
    except BaseException:
        # a part of an export looks like a whole one to whoever reads the folder
        for name in written:
            folder.delete(name)
        raise
    return dataset.count()


def _parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(
        _with_raw_multivectors(table),
        buffer,
        use_dictionary=False,
        compression="zstd",
        compression_level=1,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def to_lance(dataset: Dataset, destination: str) -> int:
    """Write one Lance dataset and return the row count.

    Raises:
        OutputError: pylance is not installed, the destination is not empty, or a fragment is
            damaged.
    """
    try:
        import lance
    except ImportError:
        raise OutputError(
            "--format lance needs the package pylance; in Nightjar's folder: "
            "pip install -e '.[lance]'"
        ) from None
    _demand_empty(destination)
    batches = (batch for table in _tables(dataset) for batch in table.to_batches())
    lance.write_dataset(batches, destination, schema=dataset.schema, mode="create")
    return dataset.count()


def read_multivectors(table: pa.Table) -> pa.Table:
    """An exported Parquet table with its multi-vectors as they are in the dataset."""
    at = table.schema.get_field_index("multivector")
    described = table.schema.field(at).metadata
    number = {b"halffloat": pa.float16(), b"float": pa.float32()}[described[b"dtype"]]
    column = table.column(at).combine_chunks()
    raw = column.values
    scale = raw.type.byte_width // (number.bit_width // 8)
    numbers = pa.Array.from_buffers(
        number, len(raw) * scale, [None, raw.buffers()[1]], offset=raw.offset * scale
    )
    vectors = pa.FixedSizeListArray.from_arrays(numbers, scale)
    return table.set_column(
        at, "multivector", pa.ListArray.from_arrays(column.offsets, vectors, mask=column.is_null())
    )


def _tables(dataset: Dataset) -> Iterator[pa.Table]:
    return dataset.read_rows()


def _with_raw_multivectors(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("multivector")
    if at < 0:
        return table
    column = table.column(at).combine_chunks()
    vectors = column.values
    kind = vectors.type
    width = kind.list_size * kind.value_type.bit_width // 8
    raw = pa.Array.from_buffers(
        pa.binary(width), len(vectors), [None, vectors.values.buffers()[1]], offset=vectors.offset
    )
    described = {"dtype": str(kind.value_type), "dim": str(kind.list_size)}
    field = pa.field("multivector", pa.list_(raw.type), metadata=described)
    return table.set_column(at, field, pa.ListArray.from_arrays(column.offsets, raw))


def _demand_empty(destination: str) -> None:
    there = list_objects(destination)
    if there:
        raise OutputError(
            f"DEST: {destination!r} is not empty, it holds {there[0].uri}; choose a new directory"
        )


def _marker(dataset: Dataset) -> bytes:
    described = {
        "dataset": dataset.uri,
        "version": dataset.version,
        "fingerprint": dataset.entry.fingerprint,
        "rows": dataset.count(),
    }
    return json.dumps(described, indent=1).encode()
