"""An evaluation: how well queries find what is relevant to them, by each kind of vector.

Every document is scored, so that what is measured is the vectors and not an index: single vectors
at each size of the checkpoint's matryoshka_dims, cut and normalised again on both sides, and
multi-vectors by MaxSim. Where there are more multi-vectors than `multi.exact_vectors` they rank
what single vectors have found first, as a search in two stages does, and the result says so.

    single    Q x V x D products      multi    Q x T x W x D, or of `multi.rerank` documents alone

Scores are held of as many rows at a time as fit, whatever the number of queries; of each query
its nearest documents are kept. Measures are those of `pipeline.ranking`, means over all queries
that are judged, with 95 % intervals. What is relevant and not in the snapshot cannot be found and
counts as not found, as in BEIR; `coverage` says how much that is.

Legend: Q queries, N rows, V vectors or multi-vectors of rows, each once, T vectors of a query, W of
rows, D size of a vector, M measures.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.index.beir import Judgements
from pipeline.index.documents import MULTIVECTOR, Documents
from pipeline.index.layout import dtype_name
from pipeline.index.nearest import Nearest
from pipeline.index.scoring import cut, maxsim, side_by_side, singles
from pipeline.index.spec import MultiSpec
from pipeline.ranking import intervals, ndcg, recall, reciprocal_rank
from pipeline.schema import largest_single

Grader = Callable[[Sequence[str], Mapping[str, float]], float]
MEASURES: Mapping[str, Grader] = {
    "ndcg@5": partial(ndcg, most=5),
    "ndcg@10": partial(ndcg, most=10),
    "recall@5": partial(recall, most=5),
    "recall@10": partial(recall, most=10),
    "recall@100": partial(recall, most=100),
    "mrr@10": partial(reciprocal_rank, most=10),
}
DEPTH = 100
"""Documents of a ranking that count."""
_NUMBERS = 1 << 24
"""Of scores, and of vectors, that are held at a time: 64 MB of each."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Queries, embedded."""

    names: tuple[str, ...]
    """Their ids."""
    single_QD: NDArray[np.float32] | None
    """Of the size of the dataset's largest single vectors; None where it has none."""
    multi: Sequence[NDArray[np.float32]] | None
    """Q arrays [T, D]; None where the dataset has no multi-vectors."""
    barred_Q: NDArray[np.int64]
    """The number of the document that each is not to find; -1 for none."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measure's mean over the queries."""

    mean: float
    """From 0 to 1."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How good one kind of vector is."""

    vectors: str
    """single or multi."""
    dim: int
    """Numbers of each vector."""
    dtype: str
    """float32 or float16, as the dataset has them; cut vectors are rounded to it."""
    vectors_per_document: float
    """The mean, over all rows of a document."""
    bytes_per_document: float
    """The mean of the vectors' bytes: vectors x numbers x bytes of a number."""
    reranked: int | None
    """Of how many documents, found by single vectors, the order was decided; None for all."""
    measures: Mapping[str, Measured]
    """By their names."""


def evaluate(
    documents: Documents,
    questions: Questions,
    judgements: Judgements,
    dims: Sequence[int],
    multi: MultiSpec,
) -> list[Result]:
    """Rank all documents for each query, by every kind of vector that there is.

    Args:
        documents: to be found.
        questions: at least one.
        judgements: of each of them.
        dims: sizes of single vectors, ascending; the last is the dataset's largest.
        multi: how multi-vectors are evaluated.
    """
    results = []
    found: Nearest | None = None
    reranks = questions.multi is not None and documents.vectors > multi.exact_vectors
    if questions.single_QD is not None:
        # the first stage finds what the second puts in order
        most = multi.rerank if reranks else DEPTH
        by_dim = _by_cosine(documents, questions, dims, most)
        found = by_dim[dims[-1]]
        for dim, ranked in by_dim.items():
            kind = documents.snapshot.schema.field(_single(documents)).type
            graded = _measured(documents, questions, judgements, ranked)
            results.append(_result("single", dim, kind.value_type, documents, graded))
    if questions.multi is not None:
        candidates = found.rankings() if reranks and found is not None else None
        ranked = _by_maxsim(documents, questions, candidates)
        graded = _measured(documents, questions, judgements, ranked)
        kind = documents.snapshot.schema.field(MULTIVECTOR).type.value_type
        results.append(
            _result(
                "multi",
                kind.list_size,
                kind.value_type,
                documents,
                graded,
                reranked=None if candidates is None else multi.rerank,
            )
        )
    return results


def _by_cosine(
    documents: Documents, questions: Questions, dims: Sequence[int], most: int
) -> dict[int, Nearest]:
    queries_QD = questions.single_QD
    assert queries_QD is not None
    cut_to = {dim: np.asarray(cut(queries_QD, dim), np.float32) for dim in dims}
    found = {dim: Nearest(len(queries_QD), most, questions.barred_Q) for dim in dims}
    at_once = max(1, _NUMBERS // max(queries_QD.shape))
    for piece, cells in documents.read(_single(documents), at_once):
        vectors_VD = singles(cells)
        for dim in dims:
            scores_QV = cut_to[dim] @ cut(vectors_VD, dim).astype(np.float32, copy=False).T
            found[dim].add(scores_QV[:, piece.of_N], piece.numbers_N)
    return found


def _by_maxsim(
    documents: Documents,
    questions: Questions,
    candidates: Sequence[NDArray[np.int64]] | None,
) -> Nearest:
    """Rank by MaxSim all documents, or of each query its candidates."""
    queries = questions.multi
    assert queries is not None
    found = Nearest(len(queries), DEPTH, questions.barred_Q)
    wanted_D = None
    if candidates is not None:
        wanted_D = np.zeros(len(documents.names), np.bool_)
        wanted_D[np.concatenate(candidates)] = True
    per_row = max(1, documents.vectors // documents.rows) * queries[0].shape[1]
    at_once = max(1, _NUMBERS // max(len(queries), per_row))
    for piece, cells in documents.read(MULTIVECTOR, at_once, wanted_D):
        multi_WD, lengths_V = side_by_side(cells)
        # once, and not for every query
        multi_WD = multi_WD.astype(np.float32, copy=False)
        scores_QN = np.full((len(queries), len(piece.numbers_N)), -np.inf, np.float32)
        for query, vectors_TD in enumerate(queries):
            if candidates is None:
                scores_QN[query] = maxsim(vectors_TD, multi_WD, lengths_V)[piece.of_N]
                continue
            wanted_N = np.isin(piece.numbers_N, candidates[query])
            used, of_N = np.unique(piece.of_N[wanted_N], return_inverse=True)
            chosen_V = np.zeros(len(lengths_V), np.bool_)
            chosen_V[used] = True
            chosen_WD = multi_WD[np.repeat(chosen_V, lengths_V)]
            scores_QN[query, wanted_N] = maxsim(vectors_TD, chosen_WD, lengths_V[chosen_V])[of_N]
        found.add(scores_QN, piece.numbers_N)
    return found


def _measured(
    documents: Documents, questions: Questions, judgements: Judgements, ranked: Nearest
) -> dict[str, Measured]:
    values = [
        [grade(found, judgements[name]) for grade in MEASURES.values()]
        for name, found in zip(questions.names, _named(documents, ranked), strict=True)
    ]
    values_QM = np.array(values)
    return {
        measure: Measured(mean=float(mean), low=float(low), high=float(high))
        for measure, mean, (low, high) in zip(
            MEASURES, values_QM.mean(axis=0), intervals(values_QM), strict=True
        )
    }


def _named(documents: Documents, ranked: Nearest) -> Iterator[list[str]]:
    for numbers in ranked.rankings():
        yield [documents.names[number] for number in numbers[:DEPTH]]


def _result(
    vectors: str,
    dim: int,
    number: pa.DataType,
    documents: Documents,
    measures: Mapping[str, Measured],
    reranked: int | None = None,
) -> Result:
    count = documents.rows if vectors == "single" else documents.vectors
    each = count / len(documents.names)
    return Result(
        vectors=vectors,
        dim=dim,
        dtype=dtype_name(number),
        vectors_per_document=each,
        bytes_per_document=each * dim * number.bit_width / 8,
        reranked=reranked,
        measures=measures,
    )


def _single(documents: Documents) -> str:
    name = largest_single(documents.snapshot.schema)
    assert name is not None
    return name
