"""Scan: read rows, and say of each item what it is, without preparing it."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.nightly.compare import SCANNED
from pipeline.nightly.signs import SIGNS, own_fields, signs
from pipeline.schema import HASH
from pipeline.stages.contents import asked_of, read_rows


def scan(rows: pa.Table, number: int, shard: str, schema: pa.Schema) -> pa.Table:
    """The items of a unit's rows, a table of `SCANNED`.

    Args:
        rows: of `source_schema`.
        number: of the unit.
        shard: key of the shard they are of.
        schema: of the output.
    """
    asked = [(at, each) for at, row in enumerate(read_rows(rows)) for each in asked_of(row)]
    well = [(at, each) for at, each in asked if each.fault is None]
    faulty = [(at, each) for at, each in asked if each.fault is not None]
    taken = rows.combine_chunks().take(pa.array([at for at, _ in well], pa.int64()))
    kept = [field.name for field in own_fields(schema)[1:]]
    found = signs(
        shard,
        schema,
        taken["id"].combine_chunks(),
        taken["task"].combine_chunks(),
        pa.array([str(each.modality) for _, each in well], pa.string()),
        pa.array([each.source_hash for _, each in well], HASH),
        [pc.struct_field(taken["kept"].combine_chunks(), name) for name in kept],
    )
    nothing = pa.table([pa.nulls(len(faulty), f.type) for f in SIGNS], schema=SIGNS)
    numbers = rows["row"].to_pylist()
    of_items = [*well, *faulty]
    columns = {
        "unit": pa.array([number] * len(of_items), pa.int32()),
        "siblings": pa.array([len(of_items)] * len(of_items), pa.int32()),
        "row": pa.array([numbers[at] for at, _ in of_items], pa.int64()),
        "modality": pa.array(
            [each.modality and str(each.modality) for _, each in of_items], pa.string()
        ),
    }
    joined = pa.concat_tables([found, nothing])
    columns |= {name: joined[name] for name in SIGNS.names}
    return pa.table([columns[f.name] for f in SCANNED], schema=SCANNED)
