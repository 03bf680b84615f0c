"""A store that goes wrong at a given call; everything else is done by the real one."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from pipeline.index.store import VectorStore


class Killed(BaseException):
    """The process is gone."""


class Faulty:
    """A store whose writes go through a hand, which may do them, raise, or both."""

    def __init__(
        self, store: VectorStore, hand: Callable[[str, pa.Table, Callable[[], None]], None]
    ) -> None:
        self._store = store
        self._hand = hand

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def load(self, collection: str, points: pa.Table) -> None:
        """As the store, by the hand."""
        self._hand("load", points, lambda: self._store.load(collection, points))

    def upsert(self, collection: str, points: pa.Table) -> None:
        """As the store, by the hand."""
        self._hand("upsert", points, lambda: self._store.upsert(collection, points))


def killed_at(number: int, done: bool = True) -> Callable[..., None]:
    """The process ends at that write, counted from 1, after it or before."""
    calls: Iterator[int] = iter(range(1, 1_000_000))

    def hand(_: str, __: pa.Table, write: Callable[[], None]) -> None:
        is_last = next(calls) == number
        if not is_last or done:
            write()
        if is_last:
            raise Killed

    return hand
