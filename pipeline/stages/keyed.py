"""Keyed: items of a source and rows of a snapshot in one schema, to be divided by name.

The key is the name as two whole numbers, which Ray Data hashes many times as fast as bytes. A
faulty item has no name: its key is its place, so that many of them do not meet in one partition.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.nightly.base import BASE
from pipeline.nightly.compare import SCANNED
from pipeline.nightly.signs import SIGN, fixed_bytes

KEYS = ("key_0", "key_1")
KEYED = pa.schema(
    [
        *(pa.field(key, pa.int64()) for key in KEYS),
        pa.field("sign", SIGN),
        pa.field("content", SIGN),
        pa.field("number", pa.int32()),
        pa.field("at", pa.int64()),
        pa.field("modality", pa.string()),
        pa.field("siblings", pa.int32()),
    ]
)
"""`number` is that of a unit or of a part; a row of a snapshot has no `siblings`."""


def key_items(scanned: pa.Table) -> pa.Table:
    """Items of `SCANNED`, keyed."""
    keys_R2 = np.where(
        scanned["sign"].is_valid().to_numpy()[:, None],
        _halves(scanned["name"]),
        np.stack([scanned["row"].to_numpy(), scanned["unit"].to_numpy()], axis=1),
    )
    others = [scanned[n] for n in ("sign", "content", "unit", "row", "modality", "siblings")]
    return pa.table([*(pa.array(key) for key in keys_R2.T), *others], schema=KEYED)


def key_rows(rows: pa.Table) -> pa.Table:
    """Rows of `BASE`, keyed."""
    others = [rows[name] for name in ("sign", "content", "part")]
    nothing = [pa.nulls(rows.num_rows, KEYED.field(n).type) for n in ("modality", "siblings")]
    keys = [pa.array(key) for key in _halves(rows["name"]).T]
    return pa.table([*keys, *others, rows["at"].cast(pa.int64()), *nothing], schema=KEYED)


def sides_of(keyed: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Keyed rows back as a table of `SCANNED` and one of `BASE`."""
    is_item = keyed["siblings"].is_valid()
    items, rows = keyed.filter(is_item), keyed.filter(pc.invert(is_item))
    columns = {"unit": items["number"], "row": items["at"], "name": _name(items)}
    scanned = [columns[n] if n in columns else items[n] for n in SCANNED.names]
    columns = {"part": rows["number"], "at": rows["at"].cast(pa.int32()), "name": _name(rows)}
    base = [columns[n] if n in columns else rows[n] for n in BASE.names]
    return pa.table(scanned, schema=SCANNED), pa.table(base, schema=BASE)


def _halves(names: pa.ChunkedArray) -> NDArray[np.int64]:
    return fixed_bytes(names.combine_chunks()).view(np.int64)


def _name(keyed: pa.Table) -> pa.Array:
    """The names that the keys were; a faulty item has none, and no sign either."""
    words_R2 = np.stack([keyed[key].to_numpy() for key in KEYS], axis=1)
    names = pa.FixedSizeBinaryArray.from_buffers(
        SIGN, len(words_R2), [None, pa.py_buffer(np.ascontiguousarray(words_R2))]
    )
    return pc.if_else(keyed["sign"].combine_chunks().is_valid(), names, pa.scalar(None, SIGN))
