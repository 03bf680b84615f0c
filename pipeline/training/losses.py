"""Losses: of a batch's scores, as jina-embeddings-v4 is trained (arXiv 2506.18902, section 4).

A batch has Q queries and P candidates: the positives of all queries, in their order, and hard
negatives after them. Scores are cosines, or sums of cosines over the tokens of a query divided by
their number, so both kinds lie in -1 .. 1 and share a temperature.

Legend: Q queries, P candidates, H size of a single vector, S tokens of the longest query, T tokens
of the longest candidate, D size of a vector of a multi-vector.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.checkpoint import checkpoint as recomputed

from pipeline.model.pooling import cut

_TOKEN_PAIRS = 1 << 25
"""Similarities of tokens that are held at a time, 128 MB; the backward pass makes them again."""


@dataclass(frozen=True, kw_only=True)
class MultiVectors:
    """Those of several items, side by side."""

    vectors_BTD: Tensor
    """Of length one; whatever is past an item's own tokens is not looked at."""
    lengths_B: Tensor
    """int64: tokens of each item."""

    @property
    def mask_BT(self) -> Tensor:
        """Which of the vectors are an item's own."""
        positions_T = torch.arange(self.vectors_BTD.shape[1], device=self.lengths_B.device)
        return positions_T < self.lengths_B.unsqueeze(1)

    def of(self, items: slice) -> "MultiVectors":
        """Those of some of the items, no longer than the longest of these."""
        lengths_B = self.lengths_B[items]
        return MultiVectors(
            vectors_BTD=self.vectors_BTD[items, : int(lengths_B.max())], lengths_B=lengths_B
        )


def single_scores(queries_QH: Tensor, candidates_PH: Tensor, dim: int) -> Tensor:
    """Cosines of single vectors that are cut to a size: [Q, P]."""
    return cut(queries_QH, dim) @ cut(candidates_PH, dim).T


def late_scores(queries: MultiVectors, candidates: MultiVectors) -> Tensor:
    """MaxSim, divided by the number of the query's tokens: [Q, P] (ColBERT, arXiv 2004.12832).

    A token that is not a candidate's own is never the closest, even where all cosines are negative.
    """
    per_query = candidates.vectors_BTD.shape[0] * candidates.vectors_BTD.shape[1]
    step = max(1, _TOKEN_PAIRS // (per_query * queries.vectors_BTD.shape[1]))
    mask_PT = candidates.mask_BT
    parts = [
        recomputed(_closest, some_qSD, candidates.vectors_BTD, mask_PT, use_reentrant=False)
        for some_qSD in torch.split(queries.vectors_BTD, step)
    ]
    closest_QSP = torch.cat(parts)
    own_QS = queries.mask_BT.unsqueeze(-1)
    sums_QP = closest_QSP.masked_fill(~own_QS, 0.0).sum(dim=1)
    return sums_QP / queries.lengths_B.unsqueeze(1)


def _closest(queries_QSD: Tensor, candidates_PTD: Tensor, mask_PT: Tensor) -> Tensor:
    """For each token of a query the cosine of a candidate's closest: [Q, S, P]."""
    cosines_QSPT = torch.einsum("qsd,ptd->qspt", queries_QSD, candidates_PTD)
    return cosines_QSPT.masked_fill(~mask_PT, -torch.inf).amax(dim=-1)


def info_nce(scores_QP: Tensor, temperature: float, passed_over_QP: Tensor, rows: Tensor) -> Tensor:
    """InfoNCE: the positive of a query, which has its number, among all candidates.

    Args:
        scores_QP: cosines.
        temperature: by which they are divided.
        passed_over_QP: bool, candidates that are no negatives of a query, since they are the same
            as its positive or answer it as well. A query's own positive is never among them.
        rows: int64, the queries that count.
    """
    logits_QP = (scores_QP / temperature).masked_fill(passed_over_QP, -torch.inf)
    return cross_entropy(logits_QP[rows], rows)


def divergence(
    single_QP: Tensor, late_QP: Tensor, temperature: float, passed_over_QP: Tensor
) -> Tensor:
    """Kullback-Leibler divergence of the late scores' distribution from the single ones'.

    D(softmax(single / temperature) || softmax(late / temperature)), mean over the queries: it ties
    the two outputs to one another.
    """
    lowest = torch.finfo(single_QP.dtype).min
    single, late = (
        log_softmax((scores / temperature).masked_fill(passed_over_QP, lowest), dim=-1)
        for scores in (single_QP, late_QP)
    )
    return kl_div(late, single, reduction="batchmean", log_target=True)


def cosent(scores_Q: Tensor, grades_Q: Tensor, temperature: float) -> Tensor:
    """CoSENT: pairs of a higher grade are to score higher (https://kexue.fm/archives/8847).

    log(1 + sum over pairs i, j with a higher grade of i of exp((s_j - s_i) / temperature)).

    Args:
        scores_Q: of each query with its own positive.
        grades_Q: what people said of how close they are; only their order counts.
        temperature: by which scores are divided.
    """
    differences_QQ = (scores_Q.unsqueeze(0) - scores_Q.unsqueeze(1)) / temperature
    is_higher_QQ = grades_Q.unsqueeze(1) > grades_Q.unsqueeze(0)
    wrong = differences_QQ[is_higher_QQ]
    return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong]), dim=0)
