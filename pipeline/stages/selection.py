"""Selection: of a unit's source rows, what some items are of."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stages.contents import OF_IMAGE
from pipeline.work import Item

_OTHER = {"text": "image", "image": "text"}


def select(rows: pa.Table, items: Iterable[Item]) -> pa.Table:
    """The rows of some items, without what else those rows ask for.

    Args:
        rows: of `source_schema`.
        items: those wanted; a row without a modality is wanted whole.
    """
    wanted: defaultdict[int, set[str]] = defaultdict(set)
    for item in items:
        # a fault of the row as a whole left nothing of it done
        wanted[item.row] |= {item.modality} if item.modality else set(_OTHER)
    rows = rows.filter(pc.is_in(rows["row"], pa.array(list(wanted), pa.int64())))
    for modality, other in _OTHER.items():
        done = [wanted[row] == {other} for row in rows["row"].to_pylist()]
        at = rows.schema.get_field_index(modality)
        field = rows.schema.field(at)
        left = pc.if_else(pa.array(done, pa.bool_()), pa.scalar(None, field.type), rows[modality])
        rows = rows.set_column(at, field, left)
    return _without_faults_of_images(rows, wanted)


def _without_faults_of_images(rows: pa.Table, wanted: Mapping[int, Collection[str]]) -> pa.Table:
    """The rows, those well again whose image alone is faulty and is not wanted."""
    numbers, reasons = rows["row"].to_pylist(), rows["reason"].to_pylist()
    well = pa.array(
        [
            reason in OF_IMAGE and "image" not in wanted[row]
            for row, reason in zip(numbers, reasons, strict=True)
        ],
        pa.bool_(),
    )
    for name in ("reason", "stage", "message"):
        at = rows.schema.get_field_index(name)
        left = pc.if_else(well, pa.scalar(None, pa.string()), rows[name])
        rows = rows.set_column(at, rows.schema.field(at), left)
    return rows
