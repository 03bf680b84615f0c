"""Scores: how near vectors are to a query's, exactly, and which are nearest.

All vectors have length one, so that an inner product is a cosine. MaxSim is computed on vectors as
they lie side by side, with the length of each document: nothing is padded, so no padding can win
over a negative similarity.

    MaxSim(q, d) = sum over the query's vectors of the largest inner product with any of the
                   document's                                 (Khattab and Zaharia, ColBERT, 2020)

Legend: N documents, V vectors of all of them, T vectors of the query, D size of a vector, K hits.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.index.layout import as_one

_BLOCK = 1 << 24
"""Products that are held at a time: 64 MB."""


def maxsim(
    query_TD: NDArray[np.floating], vectors_VD: NDArray[np.floating], lengths_N: NDArray[np.integer]
) -> NDArray[np.float32]:
    """MaxSim of a query with each document, [N]; -inf for a document without vectors.

    Args:
        query_TD: the query's vectors, at least one.
        vectors_VD: the documents' vectors, side by side; computed with in float32.
        lengths_N: how many of them are of each document; their sum is V.
    """
    scores_N = np.full(len(lengths_N), -np.inf, np.float32)
    query_DT = np.ascontiguousarray(query_TD, np.float32).T
    there = np.flatnonzero(lengths_N)
    ends = np.cumsum(lengths_N[there], dtype=np.int64)
    starts = ends - lengths_N[there]
    most = max(1, _BLOCK // max(1, query_DT.shape[1]))
    first = 0
    while first < len(there):
        # at least one document, and no more than fit
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + most, side="right")))
        block_VD = vectors_VD[starts[first] : ends[last - 1]].astype(np.float32, copy=False)
        products_VT = block_VD @ query_DT
        best_NT = np.maximum.reduceat(products_VT, starts[first:last] - starts[first], axis=0)
        scores_N[there[first:last]] = best_NT.sum(axis=1)
        first = last
    return scores_N


def maxsim_of(query_TD: NDArray[np.floating], column: pa.ChunkedArray) -> NDArray[np.float32]:
    """MaxSim of a query with each row of a column of multi-vectors, [N]; -inf for null and none."""
    return maxsim(query_TD, *side_by_side(column))


def side_by_side(
    column: pa.ChunkedArray,
) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """The vectors of a column of multi-vectors, [V, D], and how many each row has, [N]."""
    lists = as_one(column)
    vectors = lists.flatten()
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    lengths_N = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return flat.reshape(-1, vectors.type.list_size), lengths_N


def singles(column: pa.ChunkedArray) -> NDArray[np.floating]:
    """The vectors of a column of single vectors, [N, D]."""
    flat = as_one(column).flatten().to_numpy(zero_copy_only=False)
    vectors_ND: NDArray[np.floating] = flat.reshape(-1, column.type.list_size)
    return vectors_ND


def cut(vectors_ND: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """Single vectors of a smaller size, of length one again: what Matryoshka training allows.

    They are rounded to what they were before (Kusupati et al., Matryoshka Representation Learning,
    2022).
    """
    if size == vectors_ND.shape[1]:
        return vectors_ND
    cut_ND = vectors_ND[:, :size].astype(np.float32)
    cut_ND /= np.linalg.norm(cut_ND, axis=1, keepdims=True)
    return cut_ND.astype(vectors_ND.dtype, copy=False)


def nearest(scores_N: NDArray[np.floating], most: int) -> NDArray[np.intp]:
    """The numbers of the highest scores, the highest first; of equal ones the first come first.

    Args:
        scores_N: -inf for what is not to be found at all.
        most: how many.
    """
    most = min(most, int(np.count_nonzero(scores_N > -np.inf)))
    if not most:
        return np.empty(0, np.intp)
    # all that are as good as the last that counts: which of equals are first is decided by order
    least = np.partition(scores_N, len(scores_N) - most)[len(scores_N) - most]
    found = np.flatnonzero(scores_N >= least)
    ordered: NDArray[np.intp] = found[np.argsort(-scores_N[found], kind="stable")]
    return ordered[:most]
