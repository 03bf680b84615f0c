"""Each: a call for each of many things, spread over a cluster, for what needs no device."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError

from pipeline.errors import Stalled
from pipeline.stages.route import TASK_CPUS, Pool

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_TRIES = 10
"""Of a task whose worker is lost."""
_BEGUN = 64
"""Tasks that are begun at a time: what they give back is held until it is asked for."""


def each_on_ray(call: Callable[[Thing], Result], things: Iterable[Thing]) -> Iterator[Result]:
    """The results, in order, as on one process `map` would give them.

    Args:
        call: can be sent, and may be made twice for one thing.
        things: likewise.

    Raises:
        NightjarError: what a call raised.
    """
    task = ray.remote(num_cpus=TASK_CPUS, max_retries=_TRIES)(_told)
    shared = ray.put(call)
    begun: list[Any] = []
    for thing in things:
        begun.append(task.remote(shared, thing))
        if len(begun) >= _BEGUN:
            yield _result(begun.pop(0))
    for reference in begun:
        yield _result(reference)


def once_on_ray(call: Callable[[Thing], Result], thing: Thing, pool: Pool, stall: float) -> Result:
    """The result of a call that is made where an actor of a pool would be.

    Args:
        call: can be sent.
        thing: likewise.
        pool: whose resources it takes.
        stall: seconds after which it is given up.

    Raises:
        NightjarError: what the call raised.
        Stalled: nobody gave it what it needs.
    """
    task = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, max_retries=_TRIES)(_told)
    reference = task.remote(call, thing)
    try:
        found: Result = _result(reference, stall)
    except GetTimeoutError:
        ray.cancel(reference, force=True)
        raise Stalled(
            f"limits.stall: a device to embed queries on was waited for in vain for {stall:g} s"
        ) from None
    return found


def _told(call: Callable[[Thing], Result], thing: Thing) -> Result | Exception:
    try:
        return call(thing)
    except Exception as error:
        # Ray hands on an exception as text
        return error


def _result(reference: Any, seconds: float | None = None) -> Any:
    found = ray.get(reference, timeout=seconds)
    if isinstance(found, Exception):
        raise found
    return found
