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
"""Calls, and results held, at a time."""


def ahead(call: Callable[[Thing], Result], things: Iterable[Thing]) -> Iterator[Result]:
    """The results, in order, as `map` would give them."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        begun: deque[Future[Result]] = deque()
        for thing in things:
            begun.append(pool.submit(call, thing))
            if len(begun) >= _AT_ONCE:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
