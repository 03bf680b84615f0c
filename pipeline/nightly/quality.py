"""Quality: how well queries find, in a snapshot, the documents that are relevant to them.

Every vector is scored, so that what is measured is the vectors and not an index. A document is as
near as the nearest of its rows. Documents that the snapshot has not are not missed: whether they
should be there is not for the vectors to say, and a query none of whose documents is there is left
out.

Legend: Q queries, N rows, D size of a vector, K hits of a query.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import nlargest

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.folder import Folder
from pipeline.fragments import FragmentReader, read_columns
from pipeline.manifest import Part
from pipeline.nightly.queries import Query
from pipeline.ranking import in_order, ndcg, recall
from pipeline.tasks import task_named

DEPTH = 10
"""Documents of a ranking that count."""
_HITS = 5 * DEPTH
"""Rows that are kept for a query: several may be of one document."""

NDCG, RECALL = f"ndcg@{DEPTH}", f"recall@{DEPTH}"
Ranking = list[tuple[float, str]]
"""Scores and ids."""
Grade = tuple[float, float]
"""nDCG@10 and recall@10 of a query."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of every file of a snapshot."""

    vectors: NDArray[np.float32]
    """[Q, D]"""
    queries: Sequence[Query]
    """Q of them."""
    column: str
    """The single vectors that are searched."""


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What a file answers."""

    rankings: list[Ranking]
    """Of each query."""
    there: frozenset[str]
    """Relevant documents, of any query, that it has."""


def search(schema: pa.Schema, question: Question, folder: Folder, part: Part) -> Hits:
    """Search a file of a snapshot.

    Args:
        schema: of the rows.
        question: what is asked.
        folder: the dataset's root.
        part: of kind `data` or `links`.
    """
    reader = FragmentReader(schema=schema, load=partial(read_columns, folder))
    rows = reader.rows(part, ["id", "task", question.column]).combine_chunks()
    ids = list(map(str, rows["id"].to_pylist()))
    vectors = rows[question.column].combine_chunks()
    vectors_ND = np.asarray(vectors.flatten().to_numpy(zero_copy_only=False), np.float32)
    scores_QN = question.vectors @ vectors_ND.reshape(len(ids), -1).T
    adapters = np.array([task_named(task).adapter for task in rows["task"].to_pylist()])
    rankings = []
    for query, scores_N in zip(question.queries, scores_QN, strict=True):
        scores_N[adapters != task_named(query.task).adapter] = -np.inf
        best = np.argpartition(-scores_N, min(_HITS, len(ids)) - 1)[:_HITS]
        rankings.append([(float(scores_N[at]), ids[at]) for at in best if scores_N[at] > -np.inf])
    wanted = {name for query in question.queries for name in query.relevant}
    return Hits(rankings=rankings, there=frozenset(wanted.intersection(ids)))


def graded(queries: Sequence[Query], hits: Iterable[Hits]) -> dict[int, Grade]:
    """How well each query finds its documents, by its number; without those that have none there.

    Args:
        queries: those that were asked.
        hits: of all files; one is held at a time.
    """
    there: set[str] = set()
    rankings: list[Ranking] = [[] for _ in queries]
    for some in hits:
        there |= some.there
        rankings = [nlargest(_HITS, a + b) for a, b in zip(rankings, some.rankings, strict=True)]
    found: dict[int, Grade] = {}
    for number, query in enumerate(queries):
        grades = {name: grade for name, grade in query.relevant.items() if name in there}
        if grades:
            documents = [name for _, name in in_order(rankings[number])]
            found[number] = (ndcg(documents, grades, DEPTH), recall(documents, grades, DEPTH))
    return found


def means(grades: Iterable[Grade]) -> dict[str, float]:
    """The means over some queries, at least one, by what they are of."""
    gains, recalls = zip(*grades, strict=True)
    return {NDCG: float(np.mean(gains)), RECALL: float(np.mean(recalls))}
