"""The nearest documents of many queries, kept while scores come in some rows at a time.

What is held is so many documents of each query, however many there are to be scored. A document is
as near as the nearest of its rows, and of documents with equal scores the lower number is first.

Legend: Q queries, N rows that are scored, D documents among them, K documents that are kept.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.index.scoring import nearest


class Nearest:
    """The nearest documents of each query, so far."""

    def __init__(self, queries: int, most: int, barred_Q: NDArray[np.int64]) -> None:
        """Nothing is found yet.

        Args:
            queries: how many.
            most: documents that are kept of each.
            barred_Q: the number of a document that a query is not to find; -1 for none.
        """
        self._most = most
        self._barred_Q = barred_Q
        self._scores = [np.empty(0, np.float32)] * queries
        self._documents = [np.empty(0, np.int64)] * queries

    def add(self, scores_QN: NDArray[np.floating], documents_N: NDArray[np.int64]) -> None:
        """Score some rows.

        Args:
            scores_QN: -inf for what is not to be found.
            documents_N: of which document each row is.
        """
        order_N = np.argsort(documents_N, kind="stable")
        documents_D, starts_D = np.unique(documents_N[order_N], return_index=True)
        scores_QD = np.maximum.reduceat(scores_QN[:, order_N], starts_D, axis=1)
        places_Q = np.searchsorted(documents_D[:-1], self._barred_Q)
        barred = np.flatnonzero(documents_D[places_Q] == self._barred_Q)
        scores_QD[barred, places_Q[barred]] = -np.inf
        for query, scores_D in enumerate(scores_QD):
            best = nearest(scores_D, self._most)
            if len(best):
                self._keep(query, scores_D[best], documents_D[best])

    def _keep(
        self, query: int, scores_K: NDArray[np.floating], documents_K: NDArray[np.int64]
    ) -> None:
        scores = np.concatenate([self._scores[query], scores_K])
        documents = np.concatenate([self._documents[query], documents_K])
        order = np.lexsort((documents, -scores))
        # the first of a document is its best
        firsts = np.sort(np.unique(documents[order], return_index=True)[1])[: self._most]
        self._scores[query] = scores[order][firsts]
        self._documents[query] = documents[order][firsts]

    def rankings(self) -> Sequence[NDArray[np.int64]]:
        """The numbers of each query's documents, the nearest first."""
        return self._documents
