"""Flow on Ray: the same stages as one Ray Data execution.

A unit travels as one row, a parcel: its key, its adapter, and its table as Arrow IPC bytes. So a
unit is always one block, one call of an actor and one file, whatever Ray does to blocks, and no
Arrow type is lost on the way. One lane for each pool (read, prepare, embed) is joined with the
others before the one sink, in a single execution: branches by `filter` would prepare every row
once for each branch, and concurrent executions would starve each other.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy, Dataset
from ray.data.block import Block, BlockMetadata
from ray.data.datasource import Datasink, Datasource, ReadTask, WriteResult
from ray.exceptions import RayError

from pipeline.errors import NightjarError, Reason, UnexpectedError
from pipeline.stages.board import Board, tellable
from pipeline.stages.cluster import configure_data
from pipeline.stages.flow import Recipe, Watch, opened_together
from pipeline.stages.isolated import Process, Work, bisect
from pipeline.stages.route import TASK_CPUS, Pool
from pipeline.work import Receipt, WorkUnit

PARCEL = pa.schema(
    [
        pa.field("unit", pa.string()),
        pa.field("adapter", pa.string()),
        pa.field("payload", pa.large_binary()),
    ]
)
_WATCH_SECONDS = 0.5
_DEATHS = 2
"""Of workers at one stage of a unit, before it is done in a process that may die."""


def run_on_ray(
    recipe: Recipe, units: Sequence[WorkUnit], pools: Sequence[Pool], watch: Watch
) -> list[Receipt]:
    """Run every unit on the connected cluster.

    Raises:
        NightjarError: what a worker raised.
        UnexpectedError: a worker raised something else.
    """
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(board, watch, done), daemon=True)
    watcher.start()
    try:
        if ray.util.client.ray.is_connected():
            # Ray Data does not run behind Ray Client: its driver is a task in the cluster then
            execute = ray.remote(num_cpus=0, max_retries=0)(_execute)
            receipts: list[Receipt] = ray.get(execute.remote(recipe, units, pools, board))
        else:
            receipts = _execute(recipe, units, pools, board)
    except Exception as error:
        # Ray hands on a worker's exception as text: the exception itself is on the board
        failure = _asked(board.failure)
        if not isinstance(failure, NightjarError):
            raise UnexpectedError(f"Ray failed: {type(error).__name__}: {error}") from error
        raise failure from error
    finally:
        done.set()
        watcher.join()
    watch(_asked(board.read) or {})
    return receipts


def _execute(
    recipe: Recipe, units: Sequence[WorkUnit], pools: Sequence[Pool], board: Any
) -> list[Receipt]:
    """All lanes into one sink, as one execution."""
    configure_data()
    sink = ReceiptSink(recipe, board)
    lanes = [_lane(recipe, pool, units, board) for pool in pools]
    joined = reduce(lambda one, other: one.union(other), lanes)
    joined.write_datasink(sink, ray_remote_args={"num_cpus": TASK_CPUS})
    return sink.receipts


def _lane(recipe: Recipe, pool: Pool, units: Sequence[WorkUnit], board: Any) -> Dataset:
    """Read, prepare and embed the units of one pool, adapter by adapter."""
    chosen = [unit for adapter in pool.adapters for unit in units if unit.adapter == adapter]
    groups = opened_together(chosen)
    compute = ActorPoolStrategy(
        min_size=pool.size,
        max_size=pool.most,
        initial_size=pool.size,
        # while one unit is on the device, the one before is turned into Arrow, and the next opened
        max_concurrent_calls_per_actor=2,
        max_tasks_in_flight_per_actor=2,
        enable_true_multi_threading=True,
    )
    # without override_num_blocks Ray would split every unit to reach its own parallelism
    read = ray.data.read_datasource(
        UnitDatasource(recipe, groups, board), num_cpus=TASK_CPUS, override_num_blocks=len(groups)
    )
    prepared = read.map_batches(
        PrepareParcel(recipe, board), batch_size=1, batch_format="pyarrow", num_cpus=TASK_CPUS
    )
    return prepared.map_batches(
        EmbedParcel,
        fn_constructor_args=(recipe, pool, board),
        batch_size=1,
        batch_format="pyarrow",
        compute=compute,
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )


class UnitDatasource(Datasource):  # type: ignore[misc]
    """One read task for each group of units that are opened together, one parcel for each unit."""

    def __init__(self, recipe: Recipe, groups: Sequence[Sequence[WorkUnit]], board: Any) -> None:
        super().__init__()
        self._board = board
        self._recipe = recipe
        self._groups = groups

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: sizes after decoding are no use to Ray's choice of parallelism."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Called several times an execution, so it only wraps what was planned."""
        return [_read_task(self._recipe, group, self._board) for group in self._groups]


def _read_task(recipe: Recipe, group: Sequence[WorkUnit], board: Any) -> ReadTask:
    def read() -> Iterable[Block]:
        with _telling(board):
            for unit, rows in recipe.read(group):
                yield pack_parcel(unit.key(recipe.fingerprint), unit.adapter, rows)

    metadata = BlockMetadata(
        num_rows=len(group),
        size_bytes=None,
        input_files=[group[0].segment.shard.uri],
        exec_stats=None,
    )
    return ReadTask(read, metadata)


class PrepareParcel:
    """The prepare stage on a parcel, in whichever process the task lands."""

    def __init__(self, recipe: Recipe, board: Any) -> None:
        self._recipe = recipe
        self._board = board

    def __call__(self, parcel: pa.Table) -> pa.Table:
        """One parcel to one."""
        with _telling(self._board):
            return self._prepared(parcel)

    def _prepared(self, parcel: pa.Table) -> pa.Table:
        # a preparing task shares its core with others: torch's resize stays on one thread
        torch.set_num_threads(1)
        unit, adapter, rows = open_parcel(parcel)
        work = Work(recipe=self._recipe)
        if _is_deadly(self._board, work, unit):
            return pack_parcel(unit, adapter, _isolated(work, rows, Reason.DECODER_CRASH))
        return pack_parcel(unit, adapter, self._recipe.prepare()(rows))


class EmbedParcel:
    """The embed stage in an actor."""

    def __init__(self, recipe: Recipe, pool: Pool, board: Any) -> None:
        torch.set_num_threads(pool.threads)
        self._board = board
        self._recipe = recipe
        self._device = "cuda" if pool.gpus else "cpu"
        self._failure: NightjarError | None = None
        try:
            self._embed = recipe.embed(pool.adapters[0], self._device)
        except Exception as error:
            # kept for the first call: Ray starts an actor whose constructor fails again, loudly
            self._failure = tellable(error)

    def __call__(self, parcel: pa.Table) -> pa.Table:
        """One parcel to one."""
        with _telling(self._board):
            return self._embedded(parcel)

    def _embedded(self, parcel: pa.Table) -> pa.Table:
        if self._failure is not None:
            raise self._failure
        unit, adapter, items = open_parcel(parcel)
        work = Work(recipe=self._recipe, adapter=adapter, device=self._device)
        if _is_deadly(self._board, work, unit):
            return pack_parcel(unit, adapter, _isolated(work, items, Reason.WORKER_CRASH))
        return pack_parcel(unit, adapter, self._embed(items, adapter))


class ReceiptSink(Datasink[list[Receipt]]):  # type: ignore[misc]
    """The sink stage in write tasks; the receipts come back to the driver."""

    def __init__(self, recipe: Recipe, board: Any) -> None:
        self._recipe = recipe
        self._board = board
        self.receipts: list[Receipt] = []

    def write(self, blocks: Iterable[Block], ctx: Any) -> list[Receipt]:
        """Write the units of some blocks: one block, one unit, as a rule."""
        with _telling(self._board):
            return list(self._written(blocks))

    def _written(self, blocks: Iterable[Block]) -> Iterator[Receipt]:
        sink = self._recipe.sink()
        for block in blocks:
            for at in range(block.num_rows):
                unit, adapter, items = open_parcel(block.slice(at, 1))
                receipt = sink(items, unit, adapter)
                self._board.add.remote(receipt)
                yield receipt

    def on_write_complete(self, write_result: WriteResult[list[Receipt]]) -> None:
        """Collect the receipts, on the driver."""
        self.receipts = [r for part in write_result.write_returns for r in part or []]


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


def _is_deadly(board: Any, work: Work, unit: str) -> bool:
    """Whether whoever took up this stage of the unit before has died of it, as often as allowed."""
    attempt: int = _asked(board.take_up, work.stage, unit) or 1
    return attempt > _DEATHS


def _isolated(work: Work, table: pa.Table, reason: Reason) -> pa.Table:
    with Process(work) as call:
        return bisect(call, table, work.stage, reason)


@contextmanager
def _telling(board: Any) -> Iterator[None]:
    """Put a failure on the board before Ray makes text of it."""
    try:
        yield
    except Exception as error:
        _asked(board.fail, tellable(error))
        raise


def _asked(method: Any, *arguments: Any) -> Any:
    """What the board answers; None when it is gone with its node, which must not end a run."""
    try:
        return ray.get(method.remote(*arguments))
    except RayError:
        return None


def _watch(board: Any, watch: Watch, done: threading.Event) -> None:
    while not done.wait(_WATCH_SECONDS):
        watch(_asked(board.read) or {})
