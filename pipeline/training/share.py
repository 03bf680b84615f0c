"""Share: the workers that do a step together, each with its part of the batch.

Every worker passes its own packs through the network, all are told the vectors of all, each has the
loss of the whole batch and from it the gradient of its own vectors; the gradients of the weights
are added up. So every item is a negative of every other, whoever embedded it, and the sum is that
of one worker. What is told are vectors, not activations: some megabytes.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Share(Protocol):
    """What one of the workers knows of the others."""

    rank: int
    """Its number; 0 tells, looks and writes."""
    size: int
    """How many there are."""

    def spread(self, tensor: Tensor, owner: int) -> None:
        """Give all workers what one of them has, in place."""

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Have all workers have the sum of all their gradients."""

    def wait(self) -> None:
        """Until all are here."""


class Alone:
    """One worker."""

    rank, size = 0, 1

    def spread(self, tensor: Tensor, owner: int) -> None:
        """Nobody is to be told."""

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """It is the sum."""

    def wait(self) -> None:
        """For nobody."""


class Together:
    """The workers of torch's default process group."""

    def __init__(self) -> None:
        """Take a group that is there already."""
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def spread(self, tensor: Tensor, owner: int) -> None:
        """Broadcast it."""
        dist.broadcast(tensor, src=owner)

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """All-reduce what at least one worker has a gradient of.

        A part of a batch without images has none for the vision tower; a batch without any must
        leave it without one, as it is alone: an optimizer moves what has a gradient of zero.
        """
        device = parameters[0].device
        has = torch.tensor(
            [p.grad is not None for p in parameters], dtype=torch.int8, device=device
        )
        dist.all_reduce(has, op=dist.ReduceOp.MAX)
        for parameter, is_there in zip(parameters, has.tolist(), strict=True):
            if is_there:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def wait(self) -> None:
        """At a barrier."""
        dist.barrier()
