"""Objective: one number to be made small, of the vectors of a batch.

Pairs that nobody has graded: InfoNCE on single vectors, as the mean over all their sizes
(Matryoshka, arXiv 2205.13147), and on late-interaction scores, and the divergence of the two; with
a teacher, also that of the single vectors' scores from what it says of the queries. Graded ones:
CoSENT on both kinds of scores. Images of which it is told what they show: reading. See `losses`
for each.

Legend: Q queries, P candidates, M squares of all images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.training.collate import Batch
from pipeline.training.learner import Vectors
from pipeline.training.losses import (
    cosent,
    divergence,
    info_nce,
    late_scores,
    reading,
    single_scores,
    taught,
)
from pipeline.training.spec import LossSpec


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a training makes small."""

    spec: LossSpec
    """The weights of its parts."""
    dims: tuple[int, ...]
    """Sizes of single vectors, ascending."""

    def __call__(self, vectors: Vectors, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss, each with its weight; their sum is the loss."""
        device = vectors.singles_BH.device
        passed_over_QP = torch.from_numpy(batch.passed_over_QP).to(device)
        singles = [
            single_scores(
                vectors.singles_BH[: batch.queries], vectors.singles_BH[batch.queries :], dim
            )
            for dim in self.dims
        ]
        late = None
        # whoever does without late interaction need not pay for it
        if self.spec.late or self.spec.tie:
            queries = vectors.multi.of(slice(None, batch.queries))
            late = late_scores(queries, vectors.multi.of(slice(batch.queries, None)))
        is_graded = np.isfinite(batch.grades_Q)
        is_taught = np.isfinite(batch.taught_QQ.diagonal())
        parts: dict[str, Tensor] = {}
        if not is_graded.all():
            rows = torch.from_numpy(np.flatnonzero(~is_graded)).to(device)
            parts |= self._contrasted(singles, late, rows, passed_over_QP)
        if self.spec.read and (batch.shown_M >= 0).any():
            shown_M = torch.from_numpy(batch.shown_M).to(device)
            parts["read"] = self.spec.read * reading(
                vectors.seen_MH, shown_M, vectors.tokens_VH, self.spec.temperature
            )
        if is_taught.any() and self.spec.taught:
            rows = torch.from_numpy(np.flatnonzero(is_taught)).to(device)
            parts["taught"] = self._taught(singles, rows, batch)
        if is_graded.any() and self.spec.graded:
            rows = torch.from_numpy(np.flatnonzero(is_graded)).to(device)
            grades = torch.from_numpy(batch.grades_Q[is_graded]).to(device)
            kinds = singles if late is None else [*singles, late]
            ranked = [
                cosent(scores.diagonal()[rows], grades, self.spec.temperature) for scores in kinds
            ]
            parts["graded"] = self.spec.graded * torch.stack(ranked).mean()
        return parts

    def _taught(self, singles: list[Tensor], rows: Tensor, batch: Batch) -> Tensor:
        taught_QQ = torch.from_numpy(batch.taught_QQ).to(rows.device)[rows]
        each = [
            taught(
                scores[rows, : batch.queries],
                taught_QQ,
                self.spec.temperature,
                self.spec.teacher_temperature,
            )
            for scores in singles
        ]
        return self.spec.taught * torch.stack(each).mean()

    def _contrasted(
        self, singles: list[Tensor], late: Tensor | None, rows: Tensor, passed_over_QP: Tensor
    ) -> dict[str, Tensor]:
        temperature, over = self.spec.temperature, passed_over_QP
        each = torch.stack([info_nce(scores, temperature, over, rows) for scores in singles])
        parts = {"single": self.spec.single * each.mean()}
        if late is not None:
            parts["late"] = self.spec.late * info_nce(late, temperature, over, rows)
            tied = divergence(singles[-1][rows], late[rows], temperature, over[rows])
            parts["tie"] = self.spec.tie * tied
        return parts
