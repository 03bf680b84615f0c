"""Route: which actor pools there are, how large, and which adapters each serves.

Rows were routed when they were planned; this decides who takes them. With enough devices every
adapter has a pool of its own, its weights merged once. With fewer devices than adapters one shared
pool takes all units, adapter by adapter, and its actors switch: pools that wait for each other's
devices could otherwise hold the whole cluster and never finish. Every layout leaves room on the
CPUs for reading, preparing and writing, so that even one CPU is enough.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import SpecError
from pipeline.spec import PoolSpec

TASK_CPUS = 0.25
"""CPUs of a reading, preparing or writing task."""
SHARED = "shared"
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Actors with the same weights."""

    name: str
    """The adapter, or `shared`."""
    adapters: tuple[str, ...]
    """Whose units it takes, in this order."""
    size: int
    """Actors at the start."""
    most: int | None
    """Actors it may grow to; None for as many as there are devices."""
    cpus: float
    """CPUs of each actor."""
    gpus: float
    """GPUs of each actor."""

    @property
    def threads(self) -> int:
        """Compute threads of each actor: its whole CPUs, at least one."""
        return max(1, math.floor(self.cpus))


def choose_pools(
    rows: Mapping[str, int],
    wanted: Mapping[str, PoolSpec],
    *,
    cpus: float,
    gpus: float,
    node_cpus: float | None = None,
) -> tuple[Pool, ...]:
    """The pools for this work on this cluster.

    Args:
        rows: of each adapter that has any.
        wanted: the spec's `compute.pools`.
        cpus: of the whole cluster.
        gpus: of the whole cluster.
        node_cpus: of its smallest node that has any; None when it is one node.

    Raises:
        SpecError: a pool wants more than the whole cluster has.
    """
    core = _core(cpus if node_cpus is None else min(node_cpus, cpus))
    demands = {adapter: _demand(wanted.get(adapter) or PoolSpec(), core, gpus) for adapter in rows}
    for adapter, demand in demands.items():
        _demand_possible(f"compute.pools.{adapter}", demand, cpus, gpus)
    if len(rows) > 1 and not _fit(demands, cpus, gpus):
        return (_shared(rows, demands, cpus, gpus),)
    sizes = _sizes(rows, demands, wanted, cpus, gpus)
    return tuple(
        Pool(
            name=adapter,
            adapters=(adapter,),
            size=sizes[adapter],
            most=_growth(wanted.get(adapter), sizes[adapter], demands[adapter][1]),
            cpus=demands[adapter][0],
            gpus=demands[adapter][1],
        )
        for adapter in rows
    )


def describe(pools: tuple[Pool, ...]) -> str:
    """The layout in a line, for the log."""
    if pools[0].name == SHARED:
        (pool,) = pools
        return (
            f"fewer devices than adapters: {_actors(pool)} switch between "
            f"{', '.join(pool.adapters)}"
        )
    return "pools: " + ", ".join(f"{pool.name} with {_actors(pool)}" for pool in pools)


def _actors(pool: Pool) -> str:
    device = f"{pool.gpus:g} GPU" if pool.gpus else f"{pool.cpus:g} CPU"
    growth = f", up to {pool.most}" if pool.most and pool.most > pool.size else ""
    return f"{pool.size} actor{'s' if pool.size > 1 else ''} of {device}{growth}"


Demand = tuple[float, float, int]
"""(CPUs of an actor, GPUs of an actor, fewest actors)"""


def _demand(pool: PoolSpec, core: float, gpus: float) -> Demand:
    """What one pool asks for; what the spec leaves open depends on the cluster."""
    actor_gpus = pool.gpus if pool.gpus is not None else float(gpus >= 1)
    # an actor with a GPU computes there: it takes no CPU from the tasks that feed it
    actor_cpus = 0.0 if actor_gpus else core
    return (pool.cpus if pool.cpus is not None else actor_cpus, actor_gpus, pool.min)


def _core(node_cpus: float) -> float:
    """What an actor that computes on one core takes in Ray's books: a little less than 1.

    Tasks that read, prepare and write take little of a core, so every core of a node may have an
    actor; in the books a node must still have room for two tasks beside its actors.
    """
    actors = max(1, math.floor(node_cpus))
    return math.floor(1e4 * min(1.0, _for_actors(node_cpus) / actors)) / 1e4


def _growth(pool: PoolSpec | None, size: int, gpus: float) -> int | None:
    """How far a pool may grow into devices that come, or that other pools give back.

    One on CPUs stays as it is, unless its spec says how far: it would take them from the tasks that
    read, prepare and write, and those are what it waits for.
    """
    if pool is not None and pool.max is not None:
        return pool.max
    return None if gpus else size


def _demand_possible(pool: str, demand: Demand, cpus: float, gpus: float) -> None:
    """Refuse a pool that the whole cluster could not hold, were it the only one."""
    actor_cpus, actor_gpus, count = demand
    left = _for_actors(cpus)
    if actor_gpus > gpus:
        raise SpecError(
            f"{pool}.gpus: {actor_gpus:g}, but the cluster has {gpus:g} GPUs; where an autoscaler "
            "adds some, compute.grows_to says how many"
        )
    if actor_cpus > left:
        raise SpecError(
            f"{pool}.cpus: {actor_cpus:g}, but of the cluster's {cpus:g} CPUs {left:g} are left "
            "beside reading and writing"
        )
    if count * actor_gpus > gpus + _ROUNDING or count * actor_cpus > left + _ROUNDING:
        raise SpecError(
            f"{pool}.min: {count} actors of {actor_cpus:g} CPUs and {actor_gpus:g} GPUs, but the "
            f"cluster has {left:g} CPUs beside reading and writing, and {gpus:g} GPUs"
        )


def _for_actors(cpus: float) -> float:
    """CPUs left for actors: one reading and one writing task must always fit."""
    return max(0.0, cpus - 2 * TASK_CPUS)


def _fit(demands: Mapping[str, Demand], cpus: float, gpus: float) -> bool:
    need_cpus = sum(count * c for c, _, count in demands.values())
    need_gpus = sum(count * g for _, g, count in demands.values())
    return need_cpus <= _for_actors(cpus) + _ROUNDING and need_gpus <= gpus + _ROUNDING


def _shared(
    rows: Mapping[str, int], demands: Mapping[str, Demand], cpus: float, gpus: float
) -> Pool:
    actor_cpus = max(demand[0] for demand in demands.values())
    actor_gpus = max(demand[1] for demand in demands.values())
    size = _most(actor_cpus, actor_gpus, cpus, gpus)
    return Pool(
        name=SHARED,
        adapters=tuple(rows),
        size=size,
        most=_growth(None, size, actor_gpus),
        cpus=actor_cpus,
        gpus=actor_gpus,
    )


def _most(actor_cpus: float, actor_gpus: float, cpus: float, gpus: float) -> int:
    """How many such actors the cluster holds, at least one."""
    by_gpu = gpus / actor_gpus if actor_gpus else math.inf
    by_cpu = _for_actors(cpus) / actor_cpus if actor_cpus else math.inf
    bound = min(by_gpu, by_cpu)
    return 1 if math.isinf(bound) else max(1, math.floor(bound + _ROUNDING))


def _sizes(
    rows: Mapping[str, int],
    demands: Mapping[str, Demand],
    wanted: Mapping[str, PoolSpec],
    cpus: float,
    gpus: float,
) -> dict[str, int]:
    """Give out actors one by one, always to the pool with most rows for each actor it has."""
    sizes = {adapter: demands[adapter][2] for adapter in rows}
    while True:
        free_cpus = _for_actors(cpus) - sum(sizes[a] * demands[a][0] for a in rows)
        free_gpus = gpus - sum(sizes[a] * demands[a][1] for a in rows)
        can_grow = [
            adapter
            for adapter in rows
            if sizes[adapter] < ((wanted.get(adapter) or PoolSpec()).max or math.inf)
            and demands[adapter][0] + demands[adapter][1] > 0
            and demands[adapter][0] <= free_cpus + _ROUNDING
            and demands[adapter][1] <= free_gpus + _ROUNDING
        ]
        if not can_grow:
            return sizes
        sizes[max(can_grow, key=lambda adapter: rows[adapter] / sizes[adapter])] += 1
