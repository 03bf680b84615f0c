"""Capacity: what a cluster has, and what it may grow to.

Pools are sized by the second: an actor that waits for a device is what an autoscaler goes by, so
all nodes that are wanted come at once. Ray works with those that are there meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray

HEAD = "node:__internal_head__"
"""The resource that only a cluster's head has."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a cluster has, together with the nodes that its autoscaler may add."""

    cpus: float
    """Logical CPUs of all nodes."""
    gpus: float
    """GPUs of all nodes."""
    node_cpus: float
    """Logical CPUs of the smallest node that has any."""
    gpus_now: float
    """GPUs of the nodes that are there."""
    cpus_now: float
    """Logical CPUs likewise."""


def capacity() -> Capacity:
    """Of the cluster that this process is connected to."""
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    heads = [node for node in there if HEAD in node]
    cpus, gpus = _sum("CPU", there), _sum("GPU", there)
    groups = _groups(heads)
    # as many of each kind as there may be, and the head
    most = [*heads, *(kind for kind, count in groups for _ in range(count))]
    cores = [node["CPU"] for node in (*there, *(kind for kind, _ in groups)) if node.get("CPU")]
    return Capacity(
        cpus=max(cpus, _sum("CPU", most)),
        gpus=max(gpus, _sum("GPU", most)),
        node_cpus=min(cores, default=0.0),
        cpus_now=cpus,
        gpus_now=gpus,
    )


def _sum(name: str, nodes: Sequence[Mapping[str, float]]) -> float:
    return sum(node.get(name, 0.0) for node in nodes)


def _groups(heads: Sequence[Mapping[str, float]]) -> list[tuple[Mapping[str, float], int]]:
    """The kinds of nodes that an autoscaler may add, with how many there may be of each.

    The autoscaler keeps them where Ray Data finds them too; there is no public name for that.
    """
    if ray.util.client.ray.is_connected():
        return []
    config = ray._private.state.state.get_cluster_config()
    found: list[tuple[Mapping[str, float], int]] = []
    for group in () if config is None else config.node_group_configs:
        kind = dict(group.resources)
        is_of_head = any(kind.get("CPU") == head.get("CPU") for head in heads)
        # a group without a bound says nothing of how far it will go
        if group.max_count > 0 and not (group.max_count == 1 and is_of_head):
            found.append((kind, group.max_count))
    return found
