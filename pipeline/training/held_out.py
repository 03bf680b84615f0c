"""Held out: how well the model finds what it was never trained on, while it is trained.

Each held-out query of an entry of pairs is asked of all held-out answers of that entry, by single
vectors and by multi-vectors; what counts is nDCG@10, with every equal answer relevant. Of
images whose squares are told it is also counted how many are read.

Legend: Q queries, P answers, M squares of all images, m those that show a token.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from pipeline.ranking import ndcg
from pipeline.training.collate import Batch
from pipeline.training.learner import Learner, Vectors
from pipeline.training.losses import late_scores

_MOST = 10
_AT_ONCE = 64
"""Queries whose scores are held at a time."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """How well the answers of one entry of pairs are found."""

    queries: int
    """How many were asked, of as many answers."""
    single: float
    """nDCG@10 by single vectors of the full size."""
    multi: float
    """nDCG@10 by multi-vectors."""
    read: float | None
    """Share of the squares with a letter whose token is the nearest of all that are shown; None
    where nobody has said what they show."""


def look(learner: Learner, batch: Batch) -> Found:
    """Ask the queries of a batch of all its answers."""
    vectors = learner.embed(batch.items)
    q = batch.queries
    singles_QP = vectors.singles_BH[:q] @ vectors.singles_BH[q : 2 * q].T
    answers = vectors.multi.of(slice(q, 2 * q))
    with torch.no_grad():
        parts = [
            late_scores(vectors.multi.of(slice(first, min(first + _AT_ONCE, q))), answers)
            for first in range(0, q, _AT_ONCE)
        ]
    relevant_QP = batch.passed_over_QP[:, :q] | np.eye(q, dtype=bool)
    return Found(
        queries=q,
        single=_mean_ndcg(singles_QP.cpu().numpy(), relevant_QP),
        multi=_mean_ndcg(torch.cat(parts).cpu().numpy(), relevant_QP),
        read=_read(vectors, batch, learner.checkpoint.config["image_token_id"]),
    )


def _read(vectors: Vectors, batch: Batch, pad: int) -> float | None:
    shown_M = torch.from_numpy(batch.shown_M)
    shows_letter_M = (shown_M >= 0) & (shown_M != pad)
    if not shows_letter_M.any():
        return None
    shown_m = shown_M[shows_letter_M]
    known_K = torch.unique(shown_M[shown_M >= 0])
    seen_mH = normalize(vectors.seen_MH.cpu()[shows_letter_M], dim=-1)
    tokens_KH = normalize(vectors.tokens_VH.cpu()[known_K], dim=-1)
    return float((known_K[(seen_mH @ tokens_KH.T).argmax(dim=1)] == shown_m).float().mean())


def _mean_ndcg(scores_QP: NDArray[np.float32], relevant_QP: NDArray[np.bool_]) -> float:
    values = []
    for scores_P, relevant_P in zip(scores_QP, relevant_QP, strict=True):
        best = np.argsort(-scores_P, kind="stable")[:_MOST]
        grades = {str(number): 1.0 for number in np.flatnonzero(relevant_P)}
        values.append(ndcg([str(number) for number in best], grades, _MOST))
    return float(np.mean(values))
