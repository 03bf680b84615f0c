"""The contract of a vector store: what `backfill`, `audit` and `search` ask of each.

A store holds collections of points. Readers know a collection by its alias, which leads to one of
those that were filled; where it leads changes in one step. Every call may be made again: a point
has one UUID, so that to write it twice is to write it once, and what a later run has written, no
earlier one overwrites or deletes, where the store can tell.

    Busy      the call may go well later: the store is down, slow, or asks to wait
    Refused   these points will not be taken, whatever is done again

Everything else that a store's client raises is an error of ours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.index.filters import Condition
from pipeline.index.layout import POINT, Layout


class Busy(Exception):
    """The store cannot be reached, or asks to wait: the same call may go well later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        """Take what the store said, and the seconds that it asks to wait for; None for none."""
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type["Busy"], tuple[str, float | None]]:
        return (Busy, (str(self), self.retry_after))


class Refused(Exception):
    """The store will not take at least one of these points."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a store takes at a time, where a spec does not say."""

    batch_bytes: int
    """Bytes of one request, at most."""
    batch_points: int
    """Points of one request, at most."""
    at_once: int
    """Requests in flight, at most."""
    numbers_per_multi: int | None = None
    """Numbers of one multi-vector, at most; None for no bound."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is searched for."""

    using: Literal["single", "multi"]
    """Which vectors are compared."""
    vectors: NDArray[np.float32]
    """[T, D], of length one each: one of a single vector, all of a multi-vector."""
    most: int
    """Hits wanted."""
    condition: Condition | None = None
    """Points that may be found; None for all."""
    among: Sequence[bytes] | None = None
    """UUIDs of the only points that may be found, at least one; None for all."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A point that was found."""

    point: bytes
    """Its UUID."""
    score: float
    """Cosine of single vectors, or MaxSim."""
    payload: dict[str, Any]
    """id, modality, task and the payload."""


def hits_of(rows: pa.Table, scores: Sequence[float] | NDArray[np.floating]) -> list[Hit]:
    """Rows with `nightjar_point` and the payload, as hits, in their order."""
    return [
        Hit(point=row.pop(POINT), score=float(score), payload=row)
        for row, score in zip(rows.to_pylist(), scores, strict=True)
    ]


class VectorStore(Protocol):
    """One store, connected.

    A table of points has the schema of the collection's layout, and at least one row; so have lists
    of UUIDs.
    """

    bounds: Bounds

    def owner(self, collection: str) -> str | None:
        """The id of the dataset a collection was made for; None when there is no collection.

        Raises:
            CollectionError: it is there, and none of ours.
        """

    def create(self, collection: str, layout: Layout, owner: str) -> None:
        """Make a collection that is not there, with the indexes of its payload.

        Raises:
            CollectionError: it is there, or the store has no such vectors.
        """

    def demand_fit(self, collection: str, layout: Layout) -> None:
        """Refuse a collection that is not of a layout.

        Raises:
            CollectionError: says what differs: a vector's name, size, metric or type, a column.
        """

    def drop(self, collection: str) -> None:
        """Delete a collection; one that is not there is no fault."""

    def load(self, collection: str, points: pa.Table) -> None:
        """Write points that are not there yet, into a collection that nobody else writes to."""

    def upsert(self, collection: str, points: pa.Table) -> None:
        """Write points, each in the place of the one with its UUID, unless a later run's is."""

    def delete(self, collection: str, points: pa.Array, run: int) -> None:
        """Delete points by UUID, but for those that runs later than `run` have written."""

    def count(self, collection: str) -> int:
        """How many points are there, exactly."""

    def scan(self, collection: str) -> Iterator[pa.Table]:
        """UUIDs and stamps of all points, in any order; what is there twice comes twice."""

    def fetch(self, collection: str, layout: Layout, points: Sequence[bytes]) -> pa.Table:
        """The points with these UUIDs, whole, in any order, without those that are not there."""

    def settle(self, collection: str, layout: Layout) -> None:
        """Have everything that was written found, with the indexes that the layout asks for."""

    def search(self, collection: str, layout: Layout, question: Question) -> list[Hit]:
        """The nearest points, the nearest first; exact unless the layout approximates."""

    def live(self, alias: str) -> str | None:
        """The collection that an alias leads to; None when there is no such alias."""

    def lead(self, alias: str, collection: str) -> None:
        """Have an alias lead to a collection, in one step.

        Raises:
            CollectionError: something that is no alias has that name.
        """

    def close(self) -> None:
        """Let go of the connection."""
