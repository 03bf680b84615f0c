"""Search in two stages: single vectors find candidates, multi-vectors put them in order.

The same over a snapshot, which scores everything, and over a collection of a store. A document is
told once, by the best of its embeddings: its text, its image, or a part of one that was split.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.index.filters import All, Condition, OneOf, columns_of
from pipeline.index.layout import MULTI, SINGLE, Layout
from pipeline.index.scoring import cut
from pipeline.index.store import Hit, Question, VectorStore
from pipeline.tasks import Task, answering, tasks_of

_PER_DOCUMENT = 4
"""Embeddings of one document that are reckoned with."""


class Searchable(Protocol):
    """What can be searched."""

    @property
    def types(self) -> Mapping[str, pa.DataType]:
        """Of the columns that conditions may ask for, as payloads have them."""

    @property
    def vectors(self) -> AbstractSet[str]:
        """The kinds of vectors that can be compared: single, multi, or both."""

    def search(self, question: Question) -> list[Hit]:
        """The nearest, the nearest first."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A collection of a store, to be searched."""

    store: VectorStore
    """Connected."""
    name: str
    """Of the collection."""
    layout: Layout
    """Of its points."""

    @property
    def types(self) -> dict[str, pa.DataType]:
        """See `Searchable`."""
        return dict(self.layout.payload)

    @property
    def vectors(self) -> AbstractSet[str]:
        """See `Searchable`."""
        return self.layout.vectors.keys()

    def search(self, question: Question) -> list[Hit]:
        """See `Searchable`; a query's single vector is cut to what the collection has."""
        single = self.layout.single
        if question.using == SINGLE and single is not None:
            vectors = np.asarray(cut(question.vectors, single.size), np.float32)
            question = replace(question, vectors=vectors)
        return self.store.search(self.name, self.layout, question)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is searched for, embedded."""

    single: NDArray[np.float32] | None
    """[D]; None where multi-vectors alone are compared."""
    multi: NDArray[np.float32] | None
    """[T, D]; None where single vectors alone are compared."""
    task: Task
    """Of it: what it finds are the rows that answer that, and of the same adapter alone."""
    condition: Condition | None = None
    """That is asked for besides, its constants of the types of their columns."""


def search(there: Searchable, asked: Asked, most: int, candidates: int) -> list[Hit]:
    """The nearest documents, the nearest first.

    Args:
        there: where they are.
        asked: what is searched for.
        most: documents wanted.
        candidates: embeddings that single vectors find for the multi-vectors, at least.
    """
    condition = _documents(asked.task, asked.condition)
    wanted = _PER_DOCUMENT * most
    if asked.single is None:
        hits = _by_multi(there, asked, wanted, condition, None)
    else:
        found = max(candidates, wanted) if asked.multi is not None else wanted
        vectors = np.atleast_2d(asked.single)
        question = Question(using=SINGLE, vectors=vectors, most=found, condition=condition)
        hits = there.search(question)
        if asked.multi is not None and hits:
            among = [hit.point for hit in hits]
            hits = _by_multi(there, asked, wanted, None, among)
    return _once(hits)[:most]


def _by_multi(
    there: Searchable,
    asked: Asked,
    most: int,
    condition: Condition | None,
    among: Sequence[bytes] | None,
) -> list[Hit]:
    assert asked.multi is not None
    return there.search(
        Question(using=MULTI, vectors=asked.multi, most=most, condition=condition, among=among)
    )


def _documents(task: Task, condition: Condition | None) -> Condition:
    """The rows that are documents: those that a condition names by their task, or the passages."""
    found: tuple[str, ...] = (answering(task).name,)
    if condition is not None and "task" in columns_of(condition):
        found = tuple(one.name for one in tasks_of(task.adapter))
    same = OneOf(column="task", values=found, is_negated=False)
    return same if condition is None else All(parts=(same, condition))


def _once(hits: Sequence[Hit]) -> list[Hit]:
    """Of each document the best."""
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(str(hit.payload["id"]), hit)
    return list(best.values())
