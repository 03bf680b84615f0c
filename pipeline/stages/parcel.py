"""Parcel: a unit's table as one row, so that it travels whole.

A unit is then always one block, one call of an actor and one file, whatever Ray does to blocks, and
no Arrow type is lost on the way.
"""

import pyarrow as pa

PARCEL = pa.schema(
    [
        pa.field("unit", pa.string()),
        pa.field("adapter", pa.string()),
        pa.field("payload", pa.large_binary()),
    ]
)


def pack_parcel(unit: str, adapter: str, table: pa.Table) -> pa.Table:
    """A unit's table as one row."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    payload = pa.Array.from_buffers(
        pa.large_binary(), 1, [None, _offsets(sink.tell()), sink.getvalue()]
    )
    return pa.table([pa.array([unit]), pa.array([adapter]), payload], schema=PARCEL)


def open_parcel(parcel: pa.Table) -> tuple[str, str, pa.Table]:
    """(unit, adapter, table) of a parcel; the table is a view on its bytes."""
    row = {name: parcel[name][0] for name in PARCEL.names}
    with pa.ipc.open_stream(row["payload"].as_buffer()) as reader:
        return row["unit"].as_py(), row["adapter"].as_py(), reader.read_all()


def _offsets(size: int) -> pa.Buffer:
    return pa.array([0, size], pa.int64()).buffers()[1]
