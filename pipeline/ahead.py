"""Ahead: what is read next is asked for while what was read before is worked on.

For calls that mostly wait for a store; what they give is held until its turn comes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_AT_ONCE = 16


def ahead(
    call: Callable[[Thing], Result], things: Iterable[Thing], at_once: int = _AT_ONCE
) -> Iterator[Result]:
    """The results, in order, as `map` would give them.

    Args:
        call: mostly waits.
        things: to be called with.
        at_once: calls, and results held, at a time.
    """
    with ThreadPoolExecutor(at_once) as pool:
        begun: deque[Future[Result]] = deque()
        for thing in things:
            begun.append(pool.submit(call, thing))
            if len(begun) >= at_once:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
