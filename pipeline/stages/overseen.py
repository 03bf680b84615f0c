"""Overseen: an execution of Ray Data with a board beside it, which is looked at while it runs.

What a worker raised reaches the caller as it was raised; an execution that does not move is ended;
and behind Ray Client, where Ray Data does not run, its driver is a task on the cluster's head.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import ray

from pipeline.errors import HeadLost, NightjarError, Stalled, UnexpectedError
from pipeline.stages.cluster import ON_HEAD, free_resources
from pipeline.stages.holding import asked, progress, put_up
from pipeline.stages.watchdog import Watch, watched

Answer = TypeVar("Answer")


def overseen(
    execute: Callable[[Any], Answer],
    *,
    watch: Watch,
    stall: float,
    waiting: Callable[[], Sequence[str]] = tuple,
    make_board: Callable[[], Any] = put_up,
) -> Answer:
    """The answer of an execution.

    Args:
        execute: called with the board; can be sent.
        watch: told how far it is.
        stall: seconds without any progress after which it is given up.
        waiting: what the execution waits for, as far as the caller knows, a line each.
        make_board: an actor that is one.

    Raises:
        Stalled: nothing moved for so long.
        HeadLost: the cluster is gone.
        NightjarError: what a worker raised.
        UnexpectedError: a worker raised something else.
    """
    board = make_board()

    def all_that_waits() -> list[str]:
        held: list[str] = asked(board.held) or ["the board does not answer"]
        return [*held, *waiting(), free_resources()]

    try:
        answer = watched(
            partial(_where_ray_data_runs, execute, board),
            progress=partial(progress, board),
            watch=watch,
            stall=stall,
            waiting=all_that_waits,
        )
    except (Stalled, HeadLost):
        raise
    except Exception as error:
        # Ray hands on a worker's exception as text: the exception itself is on the board
        failure = asked(board.failure)
        if not isinstance(failure, NightjarError):
            raise UnexpectedError(f"Ray failed: {type(error).__name__}: {error}") from error
        raise failure from error
    last = asked(board.read)
    if last is not None:
        watch(last)
    return answer


def _where_ray_data_runs(execute: Callable[[Any], Answer], board: Any) -> Answer:
    if not ray.util.client.ray.is_connected():
        return execute(board)
    # called by name of the function: Ray makes no task of a partial
    driver = ray.remote(**ON_HEAD, max_retries=0)(_call)
    answer: Answer = ray.get(driver.remote(execute, board))
    return answer


def _call(execute: Callable[[Any], Answer], board: Any) -> Answer:
    return execute(board)
