"""How good a ranking is: nDCG, recall and reciprocal rank with graded relevance, and how sure.

They are what trec_eval computes, so that numbers can be held against published ones: a document
without a judgement, or with a grade of zero or below, is not relevant and gains nothing; where
nothing is relevant all three are 0. MRR is the mean of the last.

    DCG@k    = sum of grade / log2(1 + rank) over the first k     (Järvelin and Kekäläinen, 2002)
    nDCG@k   = DCG@k / DCG@k of the best order
    recall@k = relevant among the first k / relevant
    RR@k     = 1 / rank of the first relevant of the first k, or 0           (Voorhees, 1999)

Documents of equal score are ordered as trec_eval orders them: the greater id, as text, first. What
does not tell two documents apart should not decide by the place where they are stored.

Intervals are of the percentile bootstrap over queries (Efron and Tibshirani, 1993, chapter 13):
queries are drawn with replacement, and 95 % of the means lie in the interval.

Legend: Q queries, M measures, R resamples.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import log2

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
"""The ends of an interval then vary by about a fiftieth of its width from seed to seed."""
_LEVEL = 0.95
_BLOCK = 1 << 22
"""Draws that are held at a time."""


def in_order(hits: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """Documents, the best first, each once: it is as good as the best of its hits.

    Args:
        hits: scores and ids, in any order.
    """
    # by the id first: sorting keeps that order where the scores are equal
    found = sorted(sorted(hits, key=lambda hit: hit[1], reverse=True), key=lambda hit: -hit[0])
    best: dict[str, float] = {}
    for score, name in found:
        best.setdefault(name, score)
    return [(score, name) for name, score in best.items()]


def ndcg(found: Sequence[str], grades: Mapping[str, float], most: int) -> float:
    """nDCG of a ranking, from 0 to 1.

    Args:
        found: ids, the best first.
        grades: by id, of those that were judged.
        most: how many of the first count.
    """
    best = _dcg(sorted(grades.values(), reverse=True)[:most])
    return _dcg([grades.get(name, 0.0) for name in found[:most]]) / best if best else 0.0


def recall(found: Sequence[str], grades: Mapping[str, float], most: int) -> float:
    """Recall of a ranking, from 0 to 1; the arguments are those of `ndcg`."""
    wanted = relevant(grades)
    return len(wanted.intersection(found[:most])) / len(wanted) if wanted else 0.0


def reciprocal_rank(found: Sequence[str], grades: Mapping[str, float], most: int) -> float:
    """Reciprocal rank of the first relevant, from 0 to 1; the arguments are those of `ndcg`."""
    wanted = relevant(grades)
    ranks = (rank for rank, name in enumerate(found[:most], start=1) if name in wanted)
    return 1 / next(ranks, np.inf)


def relevant(grades: Mapping[str, float]) -> frozenset[str]:
    """The ids of those that are relevant: of a grade above 0."""
    return frozenset(name for name, grade in grades.items() if grade > 0)


def intervals(
    values_QM: NDArray[np.floating], resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """The 95 % intervals of means over queries, [M, 2]: the lower ends and the upper.

    The same queries are drawn for every measure, and for every call with the same seed and as many
    queries.

    Args:
        values_QM: measures of each query, at least one.
        resamples: how often queries are drawn.
        seed: of the draws.
    """
    queries = len(values_QM)
    random = np.random.default_rng(seed)
    means, left = [], resamples
    while left:
        some = min(left, max(1, _BLOCK // queries))
        # how often each query is drawn says as much as the draws, and makes the means a product
        drawn_RQ = random.multinomial(queries, np.full(queries, 1 / queries), size=some)
        means.append(drawn_RQ @ values_QM.astype(np.float64) / queries)
        left -= some
    ends = (1 - _LEVEL) / 2, (1 + _LEVEL) / 2
    return np.quantile(np.concatenate(means), ends, axis=0).T


def _dcg(grades: Sequence[float]) -> float:
    gains = (max(grade, 0.0) / log2(1 + rank) for rank, grade in enumerate(grades, start=1))
    return sum(gains)
