"""A Ray of several raylets on this machine, each with pretended GPUs.

The GPUs are only told to Ray; what is given one sleeps: see `simulation.work`. A raylet ends
workers that are idle for a second where it has more of them than CPUs, and with one CPU it has:
tasks here take a quarter. Each new one imports for seconds, so these raylets are told to keep them,
as those of real nodes, which have many CPUs, do by themselves.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from benchmarks.ray_head import ray_head, ray_node

_OBJECT_STORE = 200_000_000
_KEEPING = {
    "RAY_num_workers_soft_limit": "16",
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
}


@contextmanager
def raylets(count: int, *, cpus: int, gpus: int) -> Iterator[str]:
    """The address of a cluster of a head and so many raylets, and end it.

    Args:
        count: raylets beside the head's own, which has one CPU and no GPU.
        cpus: of each.
        gpus: of each, pretended.
    """
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, _KEEPING))
        head = stack.enter_context(ray_head(1, _OBJECT_STORE))
        for _ in range(count):
            stack.enter_context(ray_node(head, cpus, gpus, _OBJECT_STORE))
        yield head.address
