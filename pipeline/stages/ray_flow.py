"""Flow on Ray: the same stages as one Ray Data execution.

A unit travels as one row, a `parcel`. One lane for each pool (read, prepare, embed) is joined with
the others before the one sink, in a single execution: branches by `filter` would prepare every row
once for each branch, and concurrent executions would starve each other. Very many units go in
waves, one execution after another.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset
from ray.data.block import Block, BlockMetadata
from ray.data.datasource import Datasink, Datasource, ReadTask, WriteResult

from pipeline.errors import DeviceLost, NightjarError, Reason
from pipeline.stages.board import tellable
from pipeline.stages.cluster import configure_data
from pipeline.stages.flow import opened_together
from pipeline.stages.holding import asked, holding, put_up
from pipeline.stages.isolated import Work, survivors
from pipeline.stages.overseen import overseen
from pipeline.stages.parcel import open_parcel, pack_parcel
from pipeline.stages.recipe import Recipe
from pipeline.stages.route import TASK_CPUS, Pool
from pipeline.stages.told import Load, Seat
from pipeline.stages.watchdog import Watch, pulsing
from pipeline.stages.waves import waves
from pipeline.work import Receipt, WorkUnit

logger = logging.getLogger(__name__)

_DEATHS = 2
"""Of workers at one stage of a unit, before it is done in a process that may die."""


def run_on_ray(
    recipe: Recipe,
    units: Sequence[WorkUnit],
    pools: Sequence[Pool],
    *,
    watch: Watch,
    stall: float,
    make_board: Callable[[], Any] = put_up,
) -> list[Receipt]:
    """Run every unit on the connected cluster.

    Args:
        recipe: of the job.
        units: those that are to be done.
        pools: who does them.
        watch: told how far the run is.
        stall: seconds without any progress after which it is given up.
        make_board: an actor that is told everything.

    Raises:
        Stalled: nothing moved for so long.
        HeadLost: the cluster is gone.
        NightjarError: what a worker raised.
        UnexpectedError: a worker raised something else.
    """
    wanted = ", ".join(f"{p.size} x ({p.cpus:g} CPUs, {p.gpus:g} GPUs)" for p in pools)
    return overseen(
        partial(_execute, recipe, units, pools),
        watch=watch,
        stall=stall,
        waiting=lambda: [f"pools want {wanted}"],
        make_board=make_board,
    )


def _execute(
    recipe: Recipe, units: Sequence[WorkUnit], pools: Sequence[Pool], board: Any
) -> list[Receipt]:
    """Wave after wave, each as one execution: all lanes into one sink."""
    configure_data()
    for pool, adapter in ((p, adapter) for p in pools for adapter in p.adapters):
        mine = {u.key(recipe.fingerprint): u.rows for u in units if u.adapter == adapter}
        if mine:
            asked(board.expect, pool.name, adapter, mine)
    receipts: list[Receipt] = []
    for wave in waves(units, actors=sum(pool.size for pool in pools)):
        sink = ReceiptSink(recipe, board)
        wanted = {unit.adapter for unit in wave}
        lanes = [_lane(recipe, p, wave, board) for p in pools if not wanted.isdisjoint(p.adapters)]
        joined = reduce(lambda one, other: one.union(other), lanes)
        joined.write_datasink(sink, ray_remote_args={"num_cpus": TASK_CPUS})
        receipts += sink.receipts
    return receipts


def _lane(recipe: Recipe, pool: Pool, units: Sequence[WorkUnit], board: Any) -> Dataset:
    """Read, prepare and embed the units of one pool, adapter by adapter."""
    chosen = [unit for adapter in pool.adapters for unit in units if unit.adapter == adapter]
    groups = opened_together(chosen)
    # an actor more than there are units would load the model for nothing
    size = min(pool.size, len(chosen))
    compute = ActorPoolStrategy(
        min_size=size,
        # into what other pools give back and what an autoscaler adds
        max_size=max(size, min(pool.most or len(chosen), len(chosen))),
        initial_size=size,
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
        self._board, self._recipe = board, recipe
        self._put = ray.put(replace(recipe, revisions={}, earlier={}))
        self._groups = groups

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: sizes after decoding are no use to Ray's choice of parallelism."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Called several times an execution, so it only wraps what was planned."""
        return [self._read_task(group) for group in self._groups]

    def _read_task(self, group: Sequence[WorkUnit]) -> ReadTask:
        earlier = self._recipe.earlier
        names = [unit.key(self._recipe.fingerprint) for unit in group] if earlier else []
        read = _Read(
            recipe=self._put,
            earlier={name: earlier[name] for name in names if name in earlier},
            group=group,
            board=self._board,
        )
        files = [group[0].segment.shard.uri]
        metadata = BlockMetadata(
            num_rows=len(group), size_bytes=None, input_files=files, exec_stats=None
        )
        return ReadTask(read, metadata)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A read task's work, of which the driver holds one for each group, as bytes: so it refers to a
    recipe without earlier receipts, and has those of its own units."""

    recipe: Any
    earlier: Mapping[str, Receipt]
    group: Sequence[WorkUnit]
    board: Any

    def __call__(self) -> Iterable[Block]:
        recipe = replace(ray.get(self.recipe), earlier=self.earlier)
        key, shard = self.group[0].key(recipe.fingerprint), self.group[0].segment.shard.uri
        with holding(self.board, "source", key, shard):
            for unit, rows in recipe.read(self.group):
                name = unit.key(recipe.fingerprint)
                parcel = pack_parcel(name, unit.adapter, rows)
                self.board.has_read.remote(name)
                yield parcel


class PrepareParcel:
    """The prepare stage on a parcel, in whichever process the task lands."""

    def __init__(self, recipe: Recipe, board: Any) -> None:
        self._recipe = recipe
        self._board = board

    def __call__(self, parcel: pa.Table) -> pa.Table:
        """One parcel to one."""
        # tasks that read or write do without the seconds that torch takes to import
        import torch

        # this one shares its core with others: torch's resize stays on one thread
        torch.set_num_threads(1)
        unit, adapter, rows = open_parcel(parcel)
        work = Work(recipe=self._recipe)
        with holding(self._board, work.stage, unit) as attempt:
            if attempt > _DEATHS:
                items = survivors(work, rows, Reason.DECODER_CRASH, self._board.pulse.remote)
            else:
                prepare = self._recipe.prepare()
                with pulsing(lambda: prepare.items, self._board.pulse.remote):
                    items = prepare(rows)
            return pack_parcel(unit, adapter, items)


class EmbedParcel:
    """The embed stage in an actor."""

    def __init__(self, recipe: Recipe, pool: Pool, board: Any) -> None:
        self._board = board
        self._recipe = recipe
        self._device = "cuda" if pool.gpus else "cpu"
        self._failure: NightjarError | None = None
        # an actor that Ray has started again keeps its id, and is another worker
        self._worker, self._began, fetches = uuid.uuid4().hex, time.monotonic(), [0.0]
        self._seat = Seat(pool=pool.name, host=ray.util.get_node_ip_address())
        try:
            first, actor = pool.adapters[0], ray.get_runtime_context().get_actor_id()
            self._embed = recipe.embed(first, self._device, actor, pool.threads, fetches.append)
        except Exception as error:
            # kept for the first call: Ray starts an actor whose constructor fails again, loudly
            self._failure = tellable(error)
        else:
            board.enlist.remote(
                Load(
                    seat=self._seat,
                    device=self._embed.device,
                    seconds=time.monotonic() - self._began,
                    fetch_seconds=sum(fetches),
                )
            )
            # for as long as the actor lives
            self._pulse = pulsing(lambda: self._embed.packs, board.pulse.remote, self._tell)
            self._pulse.__enter__()
            self._tell()

    def __call__(self, parcel: pa.Table) -> pa.Table:
        """One parcel to one."""
        unit, adapter, items = open_parcel(parcel)
        work = Work(recipe=self._recipe, adapter=adapter, device=self._device)
        with holding(self._board, work.stage, unit) as attempt:
            if self._failure is not None:
                raise self._failure
            if attempt > _DEATHS:
                done = survivors(work, items, Reason.WORKER_CRASH, self._board.pulse.remote)
            else:
                done = self._embedded(items, adapter)
            return pack_parcel(unit, adapter, done)

    def _tell(self) -> None:
        """Tell what the device has done in all; of what several threads tell the latest counts."""
        held = time.monotonic() - self._began
        work = replace(self._embed.work, held_seconds=held)
        self._board.worked.remote(self._worker, self._seat, work)

    def _embedded(self, items: pa.Table, adapter: str) -> pa.Table:
        try:
            done = self._embed(items, adapter)
        except DeviceLost:
            # only a new process can use the device again; Ray starts one, and the unit has an
            # attempt less
            logger.exception("the process ends")
            os._exit(1)
        self._tell()
        return done


class ReceiptSink(Datasink[list[Receipt]]):  # type: ignore[misc]
    """The sink stage in write tasks; the receipts come back to the driver."""

    def __init__(self, recipe: Recipe, board: Any) -> None:
        self._recipe = recipe
        self._board = board
        self.receipts: list[Receipt] = []

    def write(self, blocks: Iterable[Block], ctx: Any) -> list[Receipt]:
        """Write the units of some blocks: one block, one unit, as a rule."""
        sink, receipts = self._recipe.sink(), []
        for block in blocks:
            for at in range(block.num_rows):
                unit, adapter, items = open_parcel(block.slice(at, 1))
                with holding(self._board, "sink", unit):
                    receipts.append(sink(items, unit, adapter))
                # waited for, so that what the board shows at the end is all
                asked(self._board.add, receipts[-1])
        return receipts

    def on_write_complete(self, write_result: WriteResult[list[Receipt]]) -> None:
        """Collect the receipts, on the driver."""
        self.receipts = [r for part in write_result.write_returns for r in part or []]
