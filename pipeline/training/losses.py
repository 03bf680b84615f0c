"""Losses: of a batch's scores, as jina-embeddings-v4 is trained (arXiv 2506.18902, section 4).

A batch has Q queries and P candidates: the positives of all queries, in their order, and hard
negatives after them. Scores are cosines, or sums of cosines over the tokens of a query divided by
their number, so both kinds lie in -1 .. 1 and share a temperature.

Legend: Q queries, P candidates, H size of a single vector, S tokens of the longest query, T tokens
of the longest candidate, D size of a vector of a multi-vector, N tokens of all queries, M tokens
of all candidates, or squares of all images; m those that are told, K tokens that these show, V all
tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize

from pipeline.model.pooling import cut

_TOKEN_PAIRS = 1 << 25
"""Similarities of tokens that are held at a time, 128 MB."""


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
    mask_PT = candidates.mask_BT.unsqueeze(-1)
    # the first token once more changes no maximum
    vectors_PTD = torch.where(mask_PT, candidates.vectors_BTD, candidates.vectors_BTD[:, :1])
    own_ND = queries.vectors_BTD[queries.mask_BT]
    closest_NP: Tensor = _Closest.apply(own_ND, vectors_PTD)  # type: ignore[no-untyped-call]
    owners = torch.arange(len(queries.lengths_B), device=own_ND.device)
    owner_N = owners.repeat_interleave(queries.lengths_B)
    sums_QP = closest_NP.new_zeros(len(owners), closest_NP.shape[1])
    return sums_QP.index_add(0, owner_N, closest_NP) / queries.lengths_B.unsqueeze(1)


class _Closest(torch.autograd.Function):
    """For each of N tokens the cosine of a candidate's closest: [N, P].

    A gradient reaches only the tokens that are closest, so it is a product with a sparse matrix;
    no similarity is kept for it.
    """

    @staticmethod
    def forward(ctx: Any, tokens_ND: Tensor, candidates_PTD: Tensor) -> Tensor:
        count, length, _ = candidates_PTD.shape
        flat_DM = candidates_PTD.flatten(0, 1).T
        step = max(1, _TOKEN_PAIRS // (count * length))
        parts = [
            (some_nD @ flat_DM).view(-1, count, length).max(dim=-1)
            for some_nD in torch.split(tokens_ND, step)
        ]
        ctx.save_for_backward(tokens_ND, candidates_PTD, torch.cat([at for _, at in parts]))
        return torch.cat([closest for closest, _ in parts])

    @staticmethod
    def backward(ctx: Any, gradient_NP: Tensor) -> tuple[Tensor, Tensor]:
        tokens_ND, candidates_PTD, at_NP = ctx.saved_tensors
        count, length, _ = candidates_PTD.shape
        starts_P = torch.arange(count, device=at_NP.device) * length
        owner_NP = torch.arange(len(tokens_ND), device=at_NP.device).unsqueeze(1).expand_as(at_NP)
        weights_NM = torch.sparse_coo_tensor(
            torch.stack([owner_NP.flatten(), (at_NP + starts_P).flatten()]),
            gradient_NP.flatten(),
            (len(tokens_ND), count * length),
            is_coalesced=True,
            check_invariants=False,
        )
        to_tokens_ND = torch.sparse.mm(weights_NM, candidates_PTD.flatten(0, 1))
        to_candidates_MD = torch.sparse.mm(weights_NM.t(), tokens_ND)
        return to_tokens_ND, to_candidates_MD.view_as(candidates_PTD)


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
    return _diverged(late_QP / temperature, single_QP / temperature, passed_over_QP)


def taught(
    scores_QP: Tensor, taught_QP: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    """Divergence of a student's distribution from a teacher's (Hinton et al., arXiv 1503.02531).

    D(softmax(taught / teacher_temperature) || softmax(scores / temperature)), mean over the
    queries.

    Args:
        scores_QP: cosines.
        taught_QP: the teacher's cosines; NaN where it has said nothing, which counts for neither.
        temperature: by which scores are divided.
        teacher_temperature: by which the teacher's are.
    """
    unknown_QP = taught_QP.isnan()
    return _diverged(scores_QP / temperature, taught_QP / teacher_temperature, unknown_QP)


def _diverged(logits_QP: Tensor, others_QP: Tensor, passed_over_QP: Tensor) -> Tensor:
    """D(softmax(others) || softmax(logits)) without what is passed over, mean over the queries."""
    lowest = torch.finfo(logits_QP.dtype).min
    own, other = (
        log_softmax(logits.masked_fill(passed_over_QP, lowest), dim=-1)
        for logits in (logits_QP, others_QP)
    )
    return kl_div(own, other, reduction="batchmean", log_target=True)


def reading(
    seen_MH: Tensor, shown_M: Tensor, tokens_VH: Tensor, temperature: float, nearness: float = 0.5
) -> Tensor:
    """A square of an image is to be what the embedding of the token is that stands there.

    Cross entropy of cosines over the tokens that are shown anywhere in the batch, and `nearness`
    times |seen - token|^2 / (2 E|token|^2), which is one minus the cosine where both have the
    length of a token; mean over the squares. So the decoder reads a page as it does a text.

    Args:
        seen_MH: what the vision tower has made of the squares (merged patches).
        shown_M: int64, the token of each; one below zero does not count.
        tokens_VH: the embeddings of all tokens.
        temperature: by which cosines are divided.
        nearness: the weight of the distance.
    """
    is_told_M = shown_M >= 0
    known_K, which_m = torch.unique(shown_M[is_told_M], return_inverse=True)
    tokens_KH, seen_mH = tokens_VH[known_K].detach(), seen_MH[is_told_M]
    cosines_mK = normalize(seen_mH, dim=-1) @ normalize(tokens_KH, dim=-1).T
    lengths = 2 * tokens_KH.square().sum(dim=1).mean()
    distances_m = (seen_mH - tokens_KH[which_m]).square().sum(dim=1) / lengths
    return cross_entropy(cosines_mK / temperature, which_m) + nearness * distances_m.mean()


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
