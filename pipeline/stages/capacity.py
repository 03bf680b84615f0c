"""Capacity: what a cluster has, and what it may grow to.

Pools are sized by the second: an actor that waits for a device is what an autoscaler goes by, so
all nodes that are wanted come at once, and the pool works with those that are there meanwhile. How
far an autoscaler goes is said in the spec, since Ray does not tell it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import ray

from pipeline.spec import GrowthSpec

HEAD = "node:__internal_head__"
"""The resource that only a cluster's head has."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a cluster has."""

    cpus: float
    """Logical CPUs of all nodes."""
    gpus: float
    """GPUs of all nodes."""
    node_cpus: float
    """Logical CPUs of the smallest node that has any."""

    @classmethod
    def of_nodes(cls, nodes: Sequence[Mapping[str, float]]) -> Self:
        """Of nodes with these resources."""
        cores = [node["CPU"] for node in nodes if node.get("CPU")]
        return cls(
            cpus=sum(cores),
            gpus=sum(node.get("GPU", 0.0) for node in nodes),
            node_cpus=min(cores, default=0.0),
        )

    def grown(self, growth: GrowthSpec) -> "Capacity":
        """With what an autoscaler may add."""
        cpus = max(self.cpus, growth.cpus or 0.0)
        gpus = max(self.gpus, growth.gpus or 0.0)
        # a head without CPUs says nothing of the nodes that will come
        return replace(self, cpus=cpus, gpus=gpus, node_cpus=self.node_cpus or cpus)


def capacity() -> Capacity:
    """Of the cluster that this process is connected to."""
    return Capacity.of_nodes([node["Resources"] for node in ray.nodes() if node["Alive"]])
