"""Feeding: points into a store, as fast as it takes them and no faster.

Requests are bounded by bytes and by points, and a few are in flight. A store that is busy is left
alone for as long as it asks, or for a while that doubles, and then gets half as many at once; each
that goes well lets a little more through, up to where it began (additive increase, multiplicative
decrease, as in TCP). One that refuses a request is asked with its halves, until the points are
found that it refuses; the others are written.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.index.layout import MULTI, POINT
from pipeline.index.patient import FIRST_WAIT, LONGEST_WAIT, failed
from pipeline.index.store import Busy, Refused


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A point that a store refused."""

    point: str
    """Its UUID."""
    id: str
    """Of the row."""
    message: str
    """What the store said."""


class Pace:
    """How many requests may be in flight, and when the next may begin."""

    def __init__(self, at_once: int, patience: float) -> None:
        """Begin with all that is allowed.

        Args:
            at_once: requests in flight, at most.
            patience: seconds for which one request is tried again.
        """
        self.most = at_once
        self._patience = patience
        self._allowed = float(at_once)
        self._in_flight = 0
        self._not_before = 0.0
        self._free = threading.Condition()

    @property
    def allowed(self) -> int:
        """How many requests may be in flight now."""
        return max(1, int(self._allowed))

    def call(self, request: Callable[[], None]) -> None:
        """Make a request, again and again while the store is busy.

        Raises:
            StoreFailed: it was for too long.
        """
        given_up, tries = time.monotonic() + self._patience, 0
        while True:
            try:
                with self:
                    request()
                return
            except Busy as busy:
                tries += 1
                wait = self._slow(busy.retry_after, tries)
                if time.monotonic() + wait > given_up:
                    raise failed(self._patience, busy) from busy

    def __enter__(self) -> None:
        with self._free:
            while True:
                wait = self._not_before - time.monotonic()
                if wait <= 0 and self._in_flight < self.allowed:
                    break
                self._free.wait(wait if wait > 0 else None)
            self._in_flight += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._free:
            self._in_flight -= 1
            if kind is None:
                self._allowed = min(self.most, self._allowed + 1 / self._allowed)
            self._free.notify_all()

    def _slow(self, retry_after: float | None, tries: int) -> float:
        """Let fewer through, and none for a while; its seconds."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2**tries)
        wait = random.uniform(0, longest) if retry_after is None else retry_after
        with self._free:
            self._allowed = max(1.0, self._allowed / 2)
            self._not_before = max(self._not_before, time.monotonic() + wait)
        return wait


def feed(
    points: Iterable[pa.Table], send: Callable[[pa.Table], None], pace: Pace
) -> Iterator[list[Rejected]]:
    """Send tables of points, several at a time; of each in turn the points that were refused.

    Args:
        points: each small enough for one request.
        send: writes a table, any number of times.
        pace: of the store.

    Raises:
        StoreFailed: the store was busy for too long.
    """
    with ThreadPoolExecutor(pace.most) as pool:
        begun: deque[Future[list[Rejected]]] = deque()
        try:
            for table in points:
                begun.append(pool.submit(_sent, table, send, pace))
                # one more than fit lies ready
                if len(begun) > pace.most:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


def _sent(table: pa.Table, send: Callable[[pa.Table], None], pace: Pace) -> list[Rejected]:
    try:
        pace.call(lambda: send(table))
    except Refused as refused:
        if table.num_rows == 1:
            row = table.select([POINT, "id"]).to_pylist()[0]
            return [Rejected(point=row[POINT].hex(), id=str(row["id"]), message=str(refused))]
        middle = table.num_rows // 2
        halves = (table.slice(0, middle), table.slice(middle))
        return [one for half in halves for one in _sent(half, send, pace)]
    return []


def batched(tables: Iterable[pa.Table], most_bytes: int, most_points: int) -> Iterator[pa.Table]:
    """The same points in tables that one request takes; a point that is larger goes alone."""
    held: list[pa.Table] = []
    size = count = 0
    for table in tables:
        sizes = _sizes(table)
        start = 0
        while start < table.num_rows:
            ends = np.cumsum(sizes[start:])
            fits = int(np.searchsorted(ends, most_bytes - size, side="right"))
            fits = min(fits, most_points - count)
            if not fits and not held:
                fits = 1
            if fits:
                held.append(table.slice(start, fits))
                size, count = size + int(ends[fits - 1]), count + fits
                start += fits
            if start < table.num_rows:
                yield pa.concat_tables(held)
                held, size, count = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _sizes(points: pa.Table) -> NDArray[np.int64]:
    """[N] about how many bytes each point has."""
    flat = points.drop_columns([MULTI]) if MULTI in points.schema.names else points
    sizes = np.full(points.num_rows, flat.nbytes // max(1, points.num_rows), np.int64)
    if flat is not points:
        kind = points.schema.field(MULTI).type.value_type
        lengths = pc.fill_null(pc.list_value_length(points[MULTI]), 0).to_numpy()
        sizes += lengths * (kind.list_size * kind.value_type.bit_width // 8)
    return sizes
