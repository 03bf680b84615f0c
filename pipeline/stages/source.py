"""Source: open a segment once and hand out the units that lie in it, in bounded memory."""

import tarfile
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import Reason, RunError
from pipeline.shards import READERS
from pipeline.source_spec import SourceSpec
from pipeline.storage import demand_unchanged
from pipeline.tasks import find_task
from pipeline.work import WorkUnit

_BATCH_ROWS = 1024
_FOREIGN = ", and source.task.adapters does not name its adapter"


def read_units(
    source: SourceSpec,
    units: Sequence[WorkUnit],
    id_type: pa.DataType,
    kept: Sequence[pa.Field],
) -> Iterator[tuple[WorkUnit, pa.Table]]:
    """The source rows of each unit, as tables of `source_schema`.

    Args:
        source: the units' source.
        units: of one segment and one adapter, by their start; gaps between them are passed over.
        id_type: of every id in the dataset.
        kept: the columns carried to the output, of all sources.

    Raises:
        SourceChanged: the shard is not the one that was planned.
        RunError: the shard cannot be read.
    """
    try:
        yield from _units(source, units, id_type, kept)
    except (OSError, pa.ArrowException, tarfile.TarError) as error:
        _demand_same_shard(units[0])
        reason = str(error).splitlines()[0]
        raise RunError(f"{units[0].segment.shard.uri} cannot be read: {reason}") from error


def _units(
    source: SourceSpec,
    units: Sequence[WorkUnit],
    id_type: pa.DataType,
    kept: Sequence[pa.Field],
) -> Iterator[tuple[WorkUnit, pa.Table]]:
    adapter = units[0].adapter
    pending = list(units)
    held: list[pa.Table] = []
    first = 0  # number, among the adapter's rows, of the first row held
    batch_rows = min(_BATCH_ROWS, max(unit.stop - unit.start for unit in units))
    for table in READERS[source.format](source, units[0].segment, id_type, kept, batch_rows):
        held.append(_known(source, _rows_of(source, adapter, table)))
        count = sum(part.num_rows for part in held)
        while pending and first + count >= pending[0].stop:
            unit, rows = pending.pop(0), pa.concat_tables(held)
            _demand_same_shard(unit)
            yield unit, rows.slice(unit.start - first, unit.stop - unit.start)
            rest = rows.slice(unit.stop - first)
            held, first, count = [rest], unit.stop, rest.num_rows
        if not pending:
            return
    _demand_same_shard(units[0])
    raise RunError(f"{units[0].segment.shard.uri} has fewer rows than were planned")


def _demand_same_shard(unit: WorkUnit) -> None:
    """What is the same after it was read was the same all the while."""
    # the files of a folder of images are looked at one by one, when they are read
    if not unit.segment.files:
        demand_unchanged(unit.segment.shard)


def _known(source: SourceSpec, table: pa.Table) -> pa.Table:
    """Rows of which those that name an adapter of which the source says nothing have a fault."""
    tasks = table["task"].unique().to_pylist()
    foreign = [task for task in tasks if find_task(task) and task not in source.tasks]
    if not foreign:
        return table
    is_wrong = pc.and_(
        pc.is_in(table["task"], pa.array(foreign, pa.string())), pc.is_null(table["reason"])
    )
    said = pc.binary_join_element_wise("its task is ", table["task"], _FOREIGN, "")
    faults = {"reason": str(Reason.UNKNOWN_TASK), "stage": "source", "message": said}
    for name, value in faults.items():
        at = table.schema.get_field_index(name)
        column = pc.if_else(is_wrong, value, table[name])
        table = table.set_column(at, table.schema.field(at), column)
    return table


def _rows_of(source: SourceSpec, adapter: str, table: pa.Table) -> pa.Table:
    tasks = table["task"].unique().to_pylist()
    other = [task for task in tasks if source.adapter_of(task) != adapter]
    if not other:
        return table
    return table.filter(pc.invert(pc.is_in(table["task"], pa.array(other, pa.string()))))
