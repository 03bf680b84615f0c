"""Source: open a segment once and hand out the units that lie in it, in bounded memory."""

import tarfile
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RunError
from pipeline.shards import READERS
from pipeline.source_spec import SourceSpec
from pipeline.storage import demand_unchanged
from pipeline.tasks import adapter_for
from pipeline.work import WorkUnit

_BATCH_ROWS = 1024


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
        held.append(_rows_of(adapter, table))
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


def _rows_of(adapter: str, table: pa.Table) -> pa.Table:
    tasks = table["task"].unique().to_pylist()
    other = [task for task in tasks if adapter_for(task) != adapter]
    if not other:
        return table
    return table.filter(pc.invert(pc.is_in(table["task"], pa.array(other, pa.string()))))
