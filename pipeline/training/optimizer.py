"""Optimizer: AdamW (arXiv 1711.05101) over what learns, and how fast it goes at each step."""

import math
from collections.abc import Sequence

from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from pipeline.model.layout import TOKENS
from pipeline.training.spec import OptimizerSpec

_BETAS = (0.9, 0.98)
"""The second shorter than usual: a training here is some thousands of steps."""


class Optimizer:
    """AdamW with its schedule and its bound of gradients."""

    def __init__(
        self, spec: OptimizerSpec, learning: Sequence[tuple[str, nn.Parameter]], steps: int
    ) -> None:
        """Take the parameters that learn, by name, and how many steps there will be."""
        self._spec, self._steps = spec, steps
        self._parameters = [parameter for _, parameter in learning]
        tokens = [p for name, p in learning if name.endswith(TOKENS)]
        matrices = [p for name, p in learning if p.dim() > 1 and not name.endswith(TOKENS)]
        others = [p for _, p in learning if p.dim() <= 1]
        decay = spec.weight_decay
        groups = [
            {"params": matrices, "weight_decay": decay, "times": 1.0},
            # decay is a share of the rate, and is to be the same for all
            {"params": tokens, "weight_decay": decay / spec.tokens, "times": spec.tokens},
            {"params": others, "weight_decay": 0.0, "times": 1.0},
        ]
        self.adamw = AdamW([g for g in groups if g["params"]], lr=spec.learning_rate, betas=_BETAS)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = math.ceil(self._spec.warmup * self._steps)
        if step < warm:
            return self._spec.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, self._steps - warm)
        return self._spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def step(self, step: int) -> float:
        """Move the parameters by their gradients, and forget these; the gradients' norm."""
        norm = float(clip_grad_norm_(self._parameters, self._spec.clip))
        for group in self.adamw.param_groups:
            group["lr"] = self.rate(step) * group["times"]
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm
