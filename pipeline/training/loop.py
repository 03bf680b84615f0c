"""Loop: step after step, with a look at what was held out, and a state that survives a kill."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import SpecError
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.device import DTYPES, multiplies_bfloat16, pick_device
from pipeline.model.processor import Processor
from pipeline.training.adapters import lora_config
from pipeline.training.batches import Batches
from pipeline.training.collate import Batch, Collator, with_gaps
from pipeline.training.held_out import Found, look
from pipeline.training.kept import Kept
from pipeline.training.learner import Learner, Vectors
from pipeline.training.objective import Objective
from pipeline.training.optimizer import Optimizer
from pipeline.training.pairs import Pair, Pairs
from pipeline.training.share import Alone, Share
from pipeline.training.spec import TrainingComputeSpec, TrainSpec
from pipeline.training.written import demand_new, write_adapter, write_backbone


def computed_in(compute: TrainingComputeSpec) -> tuple[torch.device, torch.dtype]:
    """The device, and the dtype of the passes, `auto` resolved.

    Raises:
        SpecError: no CUDA device where one is asked for.
    """
    device, wanted = pick_device(compute.device), compute.dtype
    if wanted == "auto":
        wanted = "bfloat16" if multiplies_bfloat16(device) else "float32"
    return device, DTYPES[wanted]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step came to."""

    step: int
    """Counted from 1."""
    steps: int
    """Of the whole training."""
    loss: float
    """The sum of its parts."""
    parts: Mapping[str, float]
    """Each with its weight."""
    rate: float
    """The learning rate."""
    norm: float
    """Of all gradients, before they were bounded."""
    tokens: int
    """Of the batch."""
    seconds: float
    """For which it took."""
    found: tuple[Found, ...] = ()
    """How well held-out pairs are found after it, by entry of pairs; empty where nobody looked."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything a training is made of; `run` does it."""

    spec: TrainSpec
    """What is wanted."""
    checkpoint: Checkpoint
    """From which it begins."""
    pairs: Sequence[Pairs]
    """Of each entry of the spec."""
    target: Path
    """Where the checkpoint goes."""
    share: Share = field(default_factory=Alone)
    """The workers that train together."""

    def run(self, show: Callable[[Step], None]) -> None:
        """Train, and write the checkpoint.

        Args:
            show: told of every step, by the first of several workers.

        Raises:
            SpecError: nothing is left to train on, or a state of another training is there.
            OutputError: the target is there already.
        """
        demand_new(self.target)
        spec = self.spec
        torch.manual_seed(spec.seed)
        learner = self._learner()
        optimizer = Optimizer(spec.optimizer, learner.learning, spec.steps)
        kept = Kept(
            folder=self.target.with_name(f"{self.target.name}.training"), identity=self._identity()
        )
        begun = kept.load(learner.learning, optimizer.adamw)
        is_first = self.share.rank == 0
        held_out = self._held_out() if is_first else []
        # all have taken up the same state before one of them writes the next
        self.share.wait()
        for step in range(begun, spec.steps):
            done = self._step(step, learner, optimizer)
            is_last = step + 1 == spec.steps
            if spec.held_out and (is_last or (step + 1) % spec.held_out.every == 0):
                done = replace(done, found=tuple(look(learner, batch) for batch in held_out))
            if is_first and not is_last and (step + 1) % spec.output.keep_every == 0:
                kept.save(step + 1, learner.learning, optimizer.adamw)
            if is_first:
                show(done)
        if is_first:
            self._write(learner)
            kept.remove()

    def _learner(self) -> Learner:
        spec, (device, dtype) = self.spec, computed_in(self.spec.compute)
        learner = Learner(self.checkpoint, device, dtype, spec.batch.tokens, self.share)
        if spec.adapter is None and spec.learns == "vision":
            learner.learn_vision()
        elif spec.adapter is None:
            learner.learn_all()
        else:
            learner.learn_adapter(spec.adapter.name, lora_config(self.checkpoint, spec.adapter))
        return learner

    def _step(self, step: int, learner: Learner, optimizer: Optimizer) -> Step:
        began = time.monotonic()
        # dropout, if any, is that of the step, whenever it is made
        torch.manual_seed(hash((self.spec.seed, step)))
        gaps = with_gaps(self.spec.batch.gaps, np.random.default_rng([self.spec.seed, step]))
        batch = self._collator.batch(self._chosen(step), gaps)
        parts: dict[str, float] = {}

        def loss(vectors: Vectors) -> Tensor:
            found = self._objective(vectors, batch)
            parts.update({name: part.item() for name, part in found.items()})
            return torch.stack(list(found.values())).sum()

        value = learner.step(batch.items, loss)
        norm = optimizer.step(step)
        return Step(
            step=step + 1,
            steps=self.spec.steps,
            loss=value,
            parts=parts,
            rate=optimizer.rate(step),
            norm=norm,
            tokens=batch.tokens,
            seconds=time.monotonic() - began,
        )

    def _chosen(self, step: int) -> list[Pair]:
        """The pairs of a step."""
        return [
            self.pairs[source][int(self._trained_on[source][number])]
            for source, numbers in self._batches.of(step)
            for number in numbers
        ]

    @cached_property
    def _share(self) -> float:
        return 0.0 if self.spec.held_out is None else self.spec.held_out.share

    @cached_property
    def _trained_on(self) -> list[NDArray[np.int64]]:
        """Of each entry, the numbers of the pairs that are not held out."""
        found = [pairs.trained_on(self._share) for pairs in self.pairs]
        for entry, numbers in zip(self.spec.pairs, found, strict=True):
            if not len(numbers):
                raise SpecError(f"pairs.uri: {entry.uri!r} leaves no pair to train on")
        return found

    @cached_property
    def _batches(self) -> Batches:
        spec = self.spec
        return Batches(
            seed=spec.seed,
            steps=spec.steps,
            pairs=spec.batch.pairs,
            sources=spec.batch.sources,
            sizes=tuple(len(numbers) for numbers in self._trained_on),
            weights=tuple(entry.weight for entry in spec.pairs),
            alike=spec.batch.alike,
            taught=self._taught if spec.batch.alike > 1 else (),
        )

    @property
    def _taught(self) -> tuple[NDArray[np.float32] | None, ...]:
        """Of each entry a teacher's vectors of the queries that are trained on, if there is one."""
        return tuple(
            None if pairs.taught_ND is None else pairs.taught_ND[numbers]
            for pairs, numbers in zip(self.pairs, self._trained_on, strict=True)
        )

    def _held_out(self) -> list[Batch]:
        """The held-out pairs of each entry that has some, ready to be asked."""
        if self.spec.held_out is None:
            return []
        found = []
        for pairs in self.pairs:
            numbers = pairs.held_out(self._share)[: self.spec.held_out.most]
            if len(numbers):
                found.append(self._collator.batch([pairs[int(number)] for number in numbers]))
        return found

    @cached_property
    def _collator(self) -> Collator:
        batch = self.spec.batch
        return Collator(
            Processor(self.checkpoint, max_length=batch.max_length, max_pixels=batch.max_pixels)
        )

    @cached_property
    def _objective(self) -> Objective:
        wanted = self.spec.loss.dims or self.checkpoint.matryoshka_dims
        dims = {self.checkpoint.demand_dim(dim, "loss.dims") for dim in wanted}
        return Objective(spec=self.spec.loss, dims=tuple(sorted(dims)))

    def _identity(self) -> dict[str, object]:
        """What makes this training another one than its neighbours'."""
        passing = {"storage", "output", "compute"}
        return {
            "spec": self.spec.model_dump(mode="json", exclude=passing),
            "checkpoint": self.checkpoint.fingerprint,
            "pairs": [len(pairs) for pairs in self.pairs],
        }

    def _write(self, learner: Learner) -> None:
        if self.spec.adapter is None:
            # adapters are the decoder's: they fit as long as that stays as it is
            fits = self.spec.learns == "vision"
            write_backbone(learner, self.target, self.spec.seed, keeps_adapters=fits)
        else:
            write_adapter(learner, self.spec.adapter.name, self.target)
