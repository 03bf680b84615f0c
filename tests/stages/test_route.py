"""Pools: whatever the cluster and the demands, they fit it and serve each adapter once."""

import math
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import SpecError
from pipeline.spec import PoolSpec
from pipeline.stages.route import SHARED, TASK_CPUS, Pool, choose_pools, describe
from pipeline.tasks import ADAPTERS

ALL = {"retrieval": 900, "code": 90, "text-matching": 9}

_ROWS = st.dictionaries(st.sampled_from(ADAPTERS), st.integers(1, 10**7), min_size=1)
_SHARES = st.none() | st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0, 2.0, 3.5])
_WHOLE_SHARES = _SHARES.map(
    lambda share: share if share is None or share <= 1 else float(int(share))
)
_CPUS = st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 61.0])
_GPUS = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, 8.0])


@st.composite
def _pool_specs(draw: st.DrawFn, biggest: int = 1) -> PoolSpec:
    least = draw(st.integers(1, biggest))
    most = draw(st.none() | st.integers(least, 9))
    return PoolSpec(min=least, max=most, gpus=draw(_WHOLE_SHARES), cpus=draw(_SHARES))


_WANTED = st.dictionaries(st.sampled_from(ADAPTERS), _pool_specs(), max_size=3)


def _demand_fit(pools: tuple[Pool, ...], rows: dict[str, int], cpus: float, gpus: float) -> None:
    served = Counter(adapter for pool in pools for adapter in pool.adapters)
    assert served == Counter(list(rows)), "each adapter is served by exactly one pool"
    busy = sum(pool.size * pool.cpus for pool in pools)
    assert busy + 2 * TASK_CPUS <= cpus + 1e-6, "reading and writing always fit beside the actors"
    assert sum(pool.size * pool.gpus for pool in pools) <= gpus + 1e-6
    for pool in pools:
        assert 1 <= pool.size <= (pool.most or pool.size)
        assert pool.threads >= 1
        assert pool.cpus >= 0 <= pool.gpus


@settings(max_examples=150)
@given(rows=_ROWS, wanted=_WANTED, cpus=_CPUS, gpus=_GPUS)
def test_pools_fit_the_cluster_and_leave_room_to_read_and_write(
    rows: dict[str, int], wanted: dict[str, PoolSpec], cpus: float, gpus: float
) -> None:
    try:
        pools = choose_pools(rows, wanted, cpus=cpus, gpus=gpus)
    except SpecError as error:
        key, _, rest = str(error).partition(": ")
        assert key.startswith("compute.pools.")
        adapter, field = key.removeprefix("compute.pools.").split(".")
        asked = getattr(wanted[adapter], field)
        assert asked > (gpus if field == "gpus" else cpus - 2 * TASK_CPUS)
        assert rest.startswith(f"{asked:g}, but")
        return
    _demand_fit(pools, rows, cpus, gpus)
    for pool in pools:
        for asked_for in (wanted[name] for name in pool.adapters if name in wanted):
            assert pool.gpus >= (asked_for.gpus or 0)
            assert pool.cpus >= (asked_for.cpus or 0)
        spec = wanted.get(pool.name)
        if pool.name != SHARED and spec is not None and spec.max is not None:
            assert pool.size <= spec.max
    assert describe(pools)


@given(rows=_ROWS, cpus=_CPUS, gpus=_GPUS)
def test_without_a_wish_pools_are_always_found(
    rows: dict[str, int], cpus: float, gpus: float
) -> None:
    pools = choose_pools(rows, {}, cpus=cpus, gpus=gpus)
    _demand_fit(pools, rows, cpus, gpus)
    if gpus:
        assert all(pool.gpus == 1 and pool.cpus == 0 for pool in pools)
        assert sum(pool.size for pool in pools) == gpus, "no device is left idle"


@example(rows={"code": 5}, wanted={"code": PoolSpec(min=8)}, cpus=2.0, gpus=0.0)
@given(
    rows=_ROWS,
    wanted=st.dictionaries(st.sampled_from(ADAPTERS), _pool_specs(biggest=9)),
    cpus=_CPUS,
    gpus=_GPUS,
)
def test_more_actors_than_fit_are_refused_or_shared(
    rows: dict[str, int], wanted: dict[str, PoolSpec], cpus: float, gpus: float
) -> None:
    try:
        pools = choose_pools(rows, wanted, cpus=cpus, gpus=gpus)
    except SpecError:
        return
    _demand_fit(pools, rows, cpus, gpus)


def test_one_cpu_gives_one_shared_pool_of_one_actor() -> None:
    (pool,) = choose_pools(ALL, {}, cpus=1, gpus=0)
    assert (pool.name, pool.adapters, pool.size) == (SHARED, tuple(ALL), 1)
    assert pool.cpus == 0.5
    assert describe((pool,)) == (
        "fewer devices than adapters: 1 actor of 0.5 CPU switch between "
        "retrieval, code, text-matching"
    )


def test_one_adapter_on_one_cpu_has_its_own_pool() -> None:
    (pool,) = choose_pools({"code": 1}, {}, cpus=1, gpus=0)
    assert (pool.name, pool.size, pool.cpus) == ("code", 1, 0.5)


@pytest.mark.parametrize("gpus", [1, 2])
def test_fewer_gpus_than_adapters_are_shared(gpus: int) -> None:
    (pool,) = choose_pools(ALL, {}, cpus=16, gpus=gpus)
    assert (pool.name, pool.size, pool.gpus, pool.cpus) == (SHARED, gpus, 1.0, 0.0)
    assert pool.adapters == tuple(ALL)


def test_as_many_gpus_as_adapters_give_each_its_own() -> None:
    pools = choose_pools(ALL, {}, cpus=16, gpus=3)
    assert [(pool.name, pool.size) for pool in pools] == [(name, 1) for name in ALL]
    assert describe(pools).startswith("pools: retrieval with 1 actor of 1 GPU, code with 1 actor")


def test_more_gpus_go_where_the_rows_are() -> None:
    sizes = {pool.name: pool.size for pool in choose_pools(ALL, {}, cpus=16, gpus=8)}
    assert sizes == {"retrieval": 6, "code": 1, "text-matching": 1}


def test_explicit_fractions_give_each_adapter_its_own_pool_on_one_gpu() -> None:
    wanted = {name: PoolSpec(gpus=1 / 3, max=1) for name in ALL}
    pools = choose_pools(ALL, wanted, cpus=4, gpus=1)
    assert [(pool.name, pool.size, round(pool.gpus, 3)) for pool in pools] == [
        (name, 1, 0.333) for name in ALL
    ]
    quarters = {name: PoolSpec(gpus=0.25) for name in ALL}
    sizes = {pool.name: pool.size for pool in choose_pools(ALL, quarters, cpus=4, gpus=1)}
    assert sizes == {"retrieval": 2, "code": 1, "text-matching": 1}


def test_explicit_fractions_of_a_cpu_give_each_adapter_its_own_pool() -> None:
    wanted = {name: PoolSpec(cpus=0.25, max=1) for name in ALL}
    pools = choose_pools(ALL, wanted, cpus=2, gpus=0)
    assert [(pool.name, pool.cpus) for pool in pools] == [(name, 0.25) for name in ALL]


def test_min_and_max_bound_a_pool() -> None:
    wanted = {"code": PoolSpec(min=3, max=3), "retrieval": PoolSpec(max=2)}
    rows = {"retrieval": 10**6, "code": 1}
    sizes = {pool.name: pool.size for pool in choose_pools(rows, wanted, cpus=64, gpus=8)}
    assert sizes == {"retrieval": 2, "code": 3}


@pytest.mark.parametrize(
    ("wanted", "cpus", "gpus", "expected"),
    [
        (PoolSpec(gpus=1), 8, 0, "compute.pools.code.gpus: 1, but the cluster has 0 GPUs"),
        (PoolSpec(gpus=4), 8, 2, "compute.pools.code.gpus: 4, but the cluster has 2 GPUs"),
        (PoolSpec(cpus=2), 2, 0, "compute.pools.code.cpus: 2, but of the cluster's 2 CPUs 1.5 are"),
    ],
)
def test_what_the_whole_cluster_does_not_have_is_refused(
    wanted: PoolSpec, cpus: float, gpus: float, expected: str
) -> None:
    with pytest.raises(SpecError, match=expected):
        choose_pools(ALL, {"code": wanted}, cpus=cpus, gpus=gpus)


def test_threads_are_the_whole_cpus_of_an_actor() -> None:
    wanted = {"code": PoolSpec(cpus=2.5, max=1)}
    (pool,) = choose_pools({"code": 1}, wanted, cpus=4, gpus=0)
    assert pool.threads == math.floor(2.5)


@given(
    nodes=st.lists(st.integers(1, 64), min_size=1, max_size=6),
    rows=st.dictionaries(st.sampled_from(ADAPTERS), st.integers(1, 10**7), min_size=1),
)
def test_every_core_of_a_cpu_cluster_computes_and_every_node_has_room_for_tasks(
    nodes: list[int], rows: dict[str, int]
) -> None:
    same = [min(nodes)] * len(nodes)
    total = float(sum(same))
    pools = choose_pools(rows, {}, cpus=total, gpus=0, node_cpus=float(min(nodes)))
    actors = sum(pool.size for pool in pools)
    assert actors >= total, "an actor for each core"
    assert all(pool.threads == 1 for pool in pools)
    each = pools[0].cpus
    held = math.floor(min(nodes) / each + 1e-9)
    assert held >= min(nodes)
    assert min(nodes) - min(nodes) * each + 1e-9 >= 2 * TASK_CPUS
