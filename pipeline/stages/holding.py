"""Holding: a worker takes up a stage of a unit on the board, and puts it down.

So it is known how many workers a unit has cost before, and who holds what when nothing moves.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.errors import RunError
from pipeline.stages.board import Board, tellable
from pipeline.stages.cluster import ON_HEAD, demand_head
from pipeline.stages.told import Progress

_MOST_DEATHS = 10
"""Of workers at one stage of a unit, after which the run is given up. Ray alone would try for ever,
and what cannot be cut in halves, such as a shard that kills whoever opens it, has no other end."""
_ANSWER_SECONDS = 30.0
"""For which the board is waited for."""


def put_up() -> Any:
    """A board, as an actor of Ray."""
    return ray.remote(**ON_HEAD)(Board).remote()


@contextmanager
def holding(board: Any, stage: str, unit: str, what: str = "") -> Iterator[int]:
    """Hold a stage of a unit; how often somebody has, since whoever did before may have died of it.

    A failure is put on the board before Ray makes text of it.

    Args:
        board: that is told.
        stage: by its name.
        unit: by its key.
        what: a user would call it, if not by its key.

    Raises:
        RunError: too many have died of it.
    """
    host = ray.util.get_node_ip_address()
    where = f"process {os.getpid()} on {host}"
    try:
        attempt = asked(board.take_up, stage, unit, where, host) or 1
        if attempt > _MOST_DEATHS:
            raise RunError(
                f"{what or f'unit {unit}'}: {_MOST_DEATHS} workers died at the stage {stage}, so "
                "the run was given up; nothing was committed; take it out of the source, or see "
                "in the logs of Ray why"
            )
        yield attempt
    except Exception as error:
        asked(board.fail, tellable(error))
        raise
    finally:
        board.put_down.remote(stage, unit)


def progress(board: Any) -> Progress | None:
    """How far the run is, by the board; None where it does not answer.

    Raises:
        HeadLost: because there is no cluster any more.
    """
    found: Progress | None = asked(board.read)
    if found is None:
        demand_head()
    return found


def asked(method: Any, *arguments: Any) -> Any:
    """What the board answers; None when it does not, which must not end a run."""
    try:
        return ray.get(method.remote(*arguments), timeout=_ANSWER_SECONDS)
    except RayError:
        return None
