"""Patience with vector stores: what is asked of one that is busy is asked again, for a while.

For all but the writing of points, whose pace `feed` keeps: it sends fewer at once, and halves what
is refused.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_random_exponential,
)

from pipeline.errors import StoreFailed
from pipeline.index.layout import Layout
from pipeline.index.store import Busy, Hit, Question, VectorStore

Answer = TypeVar("Answer")
FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0
"""Seconds, of the bound that doubles with each try."""
_DOUBLING = wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)


class Patient:
    """A store whose answers are waited for; see `VectorStore` for what each call does.

    Every call but `load` and `upsert` raises StoreFailed when the store was busy for too long.
    """

    def __init__(self, store: VectorStore, patience: float) -> None:
        """Wrap a store.

        Args:
            store: connected.
            patience: seconds for which a call is made again.
        """
        self.bounds = store.bounds
        self._store = store
        self._patience = patience

    def owner(self, collection: str) -> str | None:
        """See `VectorStore`."""
        return self._asked(lambda: self._store.owner(collection))

    def create(self, collection: str, layout: Layout, owner: str) -> None:
        """See `VectorStore`; what a try whose answer was lost has made is made anew."""
        tries = 0

        def made() -> None:
            nonlocal tries
            tries += 1
            if tries > 1:
                self._store.drop(collection)
            self._store.create(collection, layout, owner)

        self._asked(made)

    def demand_fit(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`."""
        self._asked(lambda: self._store.demand_fit(collection, layout))

    def drop(self, collection: str) -> None:
        """See `VectorStore`."""
        self._asked(lambda: self._store.drop(collection))

    def load(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`; one try."""
        self._store.load(collection, points)

    def upsert(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`; one try."""
        self._store.upsert(collection, points)

    def delete(self, collection: str, points: pa.Array, run: int) -> None:
        """See `VectorStore`."""
        self._asked(lambda: self._store.delete(collection, points, run))

    def count(self, collection: str) -> int:
        """See `VectorStore`."""
        return self._asked(lambda: self._store.count(collection))

    def scan(self, collection: str) -> Iterator[pa.Table]:
        """See `VectorStore`; whole, 24 bytes a point, so that it can be begun again."""
        yield from self._asked(lambda: list(self._store.scan(collection)))

    def fetch(self, collection: str, layout: Layout, points: Sequence[bytes]) -> pa.Table:
        """See `VectorStore`."""
        return self._asked(lambda: self._store.fetch(collection, layout, points))

    def settle(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`."""
        self._asked(lambda: self._store.settle(collection, layout))

    def search(self, collection: str, layout: Layout, question: Question) -> list[Hit]:
        """See `VectorStore`."""
        return self._asked(lambda: self._store.search(collection, layout, question))

    def live(self, alias: str) -> str | None:
        """See `VectorStore`."""
        return self._asked(lambda: self._store.live(alias))

    def lead(self, alias: str, collection: str) -> None:
        """See `VectorStore`."""
        self._asked(lambda: self._store.lead(alias, collection))

    def close(self) -> None:
        """See `VectorStore`."""
        self._store.close()

    def _asked(self, call: Callable[[], Answer]) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception_type(Busy),
            wait=_as_asked,
            stop=stop_before_delay(self._patience),
            reraise=True,
        )
        try:
            return retrying(call)
        except Busy as busy:
            raise failed(self._patience, busy) from busy


def failed(patience: float, busy: Busy) -> StoreFailed:
    """A store that was busy for too long, and what to do about it."""
    return StoreFailed(
        f"the store failed for longer than store.feed.patience, {patience:g} s: {busy}; run the "
        "same command again when it is well: what is written is kept"
    )


def _as_asked(state: RetryCallState) -> float:
    """Seconds: those that the store asks for, or up to a bound that doubles."""
    busy = state.outcome.exception() if state.outcome is not None else None
    asked = busy.retry_after if isinstance(busy, Busy) else None
    return _DOUBLING(state) if asked is None else asked
