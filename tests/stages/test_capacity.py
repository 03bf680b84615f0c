"""What pools are sized by."""

import pytest

from pipeline.errors import SpecError
from pipeline.spec import GrowthSpec, PoolSpec
from pipeline.stages.capacity import Capacity
from pipeline.stages.route import choose_pools

_HEAD, _WORKER = {"memory": 1.0}, {"CPU": 4.0, "GPU": 1.0}


def test_a_cluster_is_the_sum_of_its_nodes_and_as_small_as_the_smallest_that_computes() -> None:
    found = Capacity.of_nodes([_HEAD, _WORKER, {"CPU": 16.0}])
    assert found == Capacity(cpus=20, gpus=1, node_cpus=4)
    assert found.grown(GrowthSpec()) == found
    assert found.grown(GrowthSpec(gpus=8)) == Capacity(cpus=20, gpus=8, node_cpus=4)
    assert found.grown(GrowthSpec(gpus=0.5, cpus=2)) == found, "what is there is there"


def test_a_head_alone_has_pools_of_what_an_autoscaler_adds() -> None:
    rows, wanted = {"code": 100, "retrieval": 300}, {"retrieval": PoolSpec(gpus=1)}
    here = Capacity.of_nodes([_HEAD])
    with pytest.raises(SpecError, match=r"0 GPUs; where an autoscaler adds some, compute\.grows"):
        choose_pools(rows, wanted, cpus=here.cpus, gpus=here.gpus, node_cpus=here.node_cpus)
    later = here.grown(GrowthSpec(gpus=8, cpus=64))
    pools = choose_pools(rows, wanted, cpus=later.cpus, gpus=later.gpus, node_cpus=later.node_cpus)
    assert {pool.name: (pool.size, pool.most) for pool in pools} == {
        "code": (2, None),
        "retrieval": (6, None),
    }


def test_a_pool_on_cpus_grows_only_as_far_as_its_spec_says() -> None:
    sizes = {"cpus": 8.0, "gpus": 0.0, "node_cpus": 8.0}
    (pool,) = choose_pools({"code": 10}, {}, **sizes)
    assert pool.most == pool.size
    (pool,) = choose_pools({"code": 10}, {"code": PoolSpec(max=3)}, **sizes)
    assert (pool.size, pool.most) == (3, 3)
