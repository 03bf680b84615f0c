"""Writing: rows of a snapshot into a collection, in this process or in many."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.ahead import ahead
from pipeline.index.feed import Pace, Rejected, batched, feed
from pipeline.index.history import Entry, History
from pipeline.index.layout import POINT, Layout
from pipeline.index.points import first_halves
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.spec import VectorStoreSpec
from pipeline.index.store import VectorStore
from pipeline.storage import use_stores
from pipeline.stores import StoreSpec

Connect = Callable[[], AbstractContextManager[VectorStore]]
"""Gives a connection to a store."""
_LOOKS = 5.0
"""Seconds between looks at whether another backfill has begun."""
_READ_AHEAD = 2
"""Files of the dataset, or several small ones together, that are held: each has the vectors of a
unit, up to 100 MB."""
_TOGETHER = 64 << 20
"""Bytes of files whose rows become points together: of one of 8 MB the calls cost more than the
work."""
_TURN = 0.0003
"""Seconds for which a thread may hold the interpreter's lock when others wait for it."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of some rows."""

    points: int
    """That the store has taken."""
    rejected: tuple[Rejected, ...]
    """That it has not."""
    names: NDArray[np.uint64]
    """The first halves of the UUIDs, by which rows that repeat are found."""
    shortened: int
    """Documents that were pooled or split, because they have too many vectors."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes rows for a backfill; can be sent to other processes, with what it calls."""

    connect: Connect
    """To the store."""
    spec: VectorStoreSpec
    """Of the collection."""
    snapshot: Snapshot
    """That the rows are of."""
    layout: Layout
    """Of the collection."""
    begun: Entry
    """With which the backfill began."""
    fresh: bool
    """Whether the collection was made by it, so that nobody else writes to it."""
    storage: tuple[StoreSpec, ...] = ()
    """How object stores are reached."""
    told: Callable[[int], None] = field(default=lambda points: None)
    """Called, in the process that writes, with the points of each request that went well."""

    def __call__(self, rows: Sequence[Rows]) -> Written:
        """Write rows; those that are written already are written again.

        Raises:
            Superseded: another backfill has begun.
            StoreFailed: the store was busy for too long.
        """
        use_stores(self.storage)
        with _quick_turns(), self.connect() as store:
            bounds, chosen = store.bounds, self.spec.feed
            write = store.load if self.fresh else store.upsert
            made = _Made()
            tables = batched(
                self._points(rows, most_vectors(store, self.layout), made),
                chosen.batch_bytes or bounds.batch_bytes,
                chosen.batch_points or bounds.batch_points,
            )
            watch = _Watch(History(self.snapshot.folder, self.spec), self.begun)
            send = partial(self._send, write, watch)
            sent = feed(tables, send, pace_of(store, self.spec))
            rejected = tuple(one for some in sent for one in some)
        names = np.concatenate([np.empty(0, np.uint64), *made.names])
        return Written(
            points=len(names) - len(rejected),
            rejected=rejected,
            names=names,
            shortened=made.shortened,
        )

    def _send(
        self, write: Callable[[str, pa.Table], None], watch: "_Watch", points: pa.Table
    ) -> None:
        watch.demand_newest()
        write(self.begun.collection, points)
        self.told(points.num_rows)

    def _points(self, rows: Sequence[Rows], most: int | None, made: "_Made") -> Iterator[pa.Table]:
        make = partial(self.snapshot.points, layout=self.layout, run=self.begun.run, most=most)
        for some in ahead(make, _together(rows), _READ_AHEAD):
            made.names.append(first_halves(some.table[POINT]))
            made.shortened += some.shortened
            yield some.table


@contextmanager
def _quick_turns() -> Iterator[None]:
    """Let threads of this process wait less for their turns.

    A store's client takes the interpreter's lock often, LanceDB's for each record batch, and waits
    for a whole switch interval of 5 ms each time that points are being made.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _TURN))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _together(rows: Sequence[Rows]) -> Iterator[list[Rows]]:
    """The same rows, those of small files side by side."""
    held: list[Rows] = []
    size = 0
    for some in rows:
        if held and size + some.part.file.size > _TOGETHER:
            yield held
            held, size = [], 0
        held.append(some)
        size += some.part.file.size
    if held:
        yield held


class _Watch:
    """Looks now and then whether another backfill has begun."""

    def __init__(self, history: History, begun: Entry) -> None:
        self._history = history
        self._begun = begun
        self._looked = -math.inf

    def demand_newest(self) -> None:
        """Look, when it was some seconds ago that somebody did.

        Raises:
            Superseded: another has begun.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOKS:
            self._looked = now
            self._history.demand_newest(self._begun)


@dataclass(kw_only=True)
class _Made:
    """What is remembered of points when they are gone."""

    names: list[NDArray[np.uint64]] = field(default_factory=list)
    shortened: int = 0


def most_vectors(store: VectorStore, layout: Layout) -> int | None:
    """Vectors that a multi-vector of a layout may have in a store; None for no bound."""
    if layout.multi is None or store.bounds.numbers_per_multi is None:
        return None
    return max(1, store.bounds.numbers_per_multi // layout.multi.size)


def pace_of(store: VectorStore, spec: VectorStoreSpec) -> Pace:
    """How fast a store is asked, at first."""
    return Pace(spec.feed.at_once or store.bounds.at_once, spec.feed.patience)
