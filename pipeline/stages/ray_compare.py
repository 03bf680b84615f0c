"""Compare on Ray: tasks read both sides, and match them partition by partition, divided by name.

    segments of the source  -> scan -> items --+
                                               +--> by name -> compare -> what differs -> driver
    files of the snapshot   -> base -> rows  --+

One execution of Ray Data: its hash shuffle puts all rows of a name into one partition, whole. A row
is about 70 bytes there, and the driver gets what differs alone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import pyarrow as pa
import ray
from ray.data.block import Block, BlockMetadata
from ray.data.datasource import Datasink, Datasource, ReadTask, WriteResult

from pipeline.nightly.base import base_rows
from pipeline.nightly.compare import Differences, Sides, compare, together
from pipeline.stages.cluster import dividing
from pipeline.stages.compare import NumberedPart, NumberedUnit, files_of, gathered, segments_of
from pipeline.stages.holding import holding
from pipeline.stages.keyed import KEYED, KEYS, key_items, key_rows, sides_of
from pipeline.stages.overseen import overseen
from pipeline.stages.recipe import Recipe

_READ_CPUS = 0.5
"""Of a reading task: it hashes half of its time, and waits for the store the other half."""
_SCANNED_TOGETHER = 1 << 15
"""Rows that one task scans: a task is not free, and a small one is soon done again."""
_PARTITION_ROWS = 1 << 20
"""About which a partition has: comparing it takes a few hundred MB."""


def compare_on_ray(recipe: Recipe, sides: Sides, *, stall: float) -> Differences:
    """Read both sides and compare them, on the connected cluster.

    Args:
        recipe: of the job.
        sides: what is compared.
        stall: seconds without any progress after which it is given up.

    Raises:
        Stalled: nothing moved for so long.
        HeadLost: the cluster is gone.
        NightjarError: what a worker raised.
        UnexpectedError: a worker raised something else.
    """
    if not (sides.units or sides.parts):
        # no night starts an execution for nothing
        return together([])
    execute = partial(_execute, recipe, sides)
    return together(overseen(execute, watch=lambda tallies: None, stall=stall))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one task reads."""

    name: str
    """Of its first object, for whoever looks for what a task died of."""
    rows: int
    """About how many there are."""
    read: Callable[[], Iterable[pa.Table]]
    """Gives tables of `KEYED`."""


def compare_readings(readings: Sequence[Reading], keep_gone: bool, board: Any) -> list[Differences]:
    """Read what readings give, divide it by name, and compare it: what the partitions come to.

    Args:
        readings: of both sides.
        keep_gone: whether it matters which rows are gone from the source.
        board: that is told.
    """
    partitions = max(1, ceil(sum(reading.rows for reading in readings) / _PARTITION_ROWS))
    sink = DifferenceSink(keep_gone, board)
    with dividing():
        read = ray.data.read_datasource(
            ReadingDatasource(readings, board),
            num_cpus=_READ_CPUS,
            override_num_blocks=len(readings),
        )
        read.repartition(partitions, keys=list(KEYS)).write_datasink(sink)
    return sink.found


def _execute(recipe: Recipe, sides: Sides, board: Any) -> list[Differences]:
    readings = [*_of_source(recipe, sides.units), *_of_snapshot(recipe, sides)]
    return compare_readings(readings, sides.keep_gone, board)


def _of_source(recipe: Recipe, units: Sequence[NumberedUnit]) -> Iterable[Reading]:
    def rows(segment: Sequence[NumberedUnit]) -> int:
        return sum(unit.rows for _, unit in segment)

    for segments in gathered(segments_of(units), rows, _SCANNED_TOGETHER):
        _, first = segments[0][0]
        yield Reading(
            name=f"{first.segment.shard.uri} from row {first.segment.first_row + first.start} "
            f"({first.adapter})",
            rows=sum(map(rows, segments)),
            read=partial(_scan, recipe, segments),
        )


def _of_snapshot(recipe: Recipe, sides: Sides) -> Iterable[Reading]:
    for parts in files_of(sides.parts):
        yield Reading(
            name=f"{recipe.output}/{parts[0][1].file.path}",
            rows=sum(part.rows for _, part in parts),
            read=partial(_base, recipe, sides.schema, parts),
        )


def _scan(recipe: Recipe, segments: Iterable[Sequence[NumberedUnit]]) -> Iterable[pa.Table]:
    return map(key_items, map(recipe.scan, segments))


def _base(recipe: Recipe, schema: pa.Schema, parts: Sequence[NumberedPart]) -> Iterable[pa.Table]:
    yield key_rows(recipe.in_dataset(partial(base_rows, schema), parts))


class ReadingDatasource(Datasource):  # type: ignore[misc]
    """One read task for each reading."""

    def __init__(self, readings: Sequence[Reading], board: Any) -> None:
        super().__init__()
        self._readings = readings
        self._board = board

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: how the rows are divided is decided already."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Called several times an execution, so it only wraps what was planned."""
        return [_read_task(reading, self._board) for reading in self._readings]


def _read_task(reading: Reading, board: Any) -> ReadTask:
    def read() -> Iterable[Block]:
        with holding(board, "compare", reading.name, reading.name):
            for table in reading.read():
                board.pulse.remote()
                yield table

    metadata = BlockMetadata(
        num_rows=None, size_bytes=None, input_files=[reading.name], exec_stats=None
    )
    return ReadTask(read, metadata, schema=KEYED)


class DifferenceSink(Datasink[list[Differences]]):  # type: ignore[misc]
    """Compares partitions, each where it is; what differs comes back to the driver."""

    def __init__(self, keep_gone: bool, board: Any) -> None:
        self._keep_gone = keep_gone
        self._board = board
        self.found: list[Differences] = []

    def write(self, blocks: Iterable[Block], ctx: Any) -> list[Differences]:
        """Compare some blocks that hold whole partitions."""
        with holding(self._board, "compare", f"partition {ctx.task_idx}"):
            keyed = pa.concat_tables([KEYED.empty_table(), *filter(len, blocks)])
            scanned, rows = sides_of(keyed)
            return [compare(scanned, rows, keep_gone=self._keep_gone)]

    def on_write_complete(self, write_result: WriteResult[list[Differences]]) -> None:
        """Collect what differs, on the driver."""
        self.found = [found for part in write_result.write_returns for found in part or []]
