"""`nightjar train`: a backbone or an adapter learns from pairs; a new checkpoint comes of it."""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from jobs.printed import printed
from pipeline.errors import SpecError
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.device import multiplies_bfloat16, name_of
from pipeline.model.new_tokenizer import train_tokenizer
from pipeline.stages.opened import open_model, open_model_settings
from pipeline.storage import use_stores
from pipeline.training.fresh import geometry_of, write_fresh
from pipeline.training.held_out import Found
from pipeline.training.loop import Step, Training, computed_in
from pipeline.training.pairs import Pairs, read_pairs
from pipeline.training.spec import BatchSpec, FreshSpec, TrainingComputeSpec, TrainSpec
from pipeline.training.written import demand_new

_TOLD_EVERY = 10.0
_EXAMPLES = 5


def run(spec: TrainSpec, address: str = "none") -> None:
    """The command.

    Args:
        spec: of the training.
        address: which Ray, or `none` for this process.

    Raises:
        SpecError: the spec does not fit the pairs, the checkpoint or an earlier state.
        SourceError: pairs cannot be read.
        CheckpointError: the checkpoint cannot.
        OutputError: the output is there already.
    """
    use_stores(spec.storage)
    demand_new(Path(spec.output.path))
    if isinstance(spec.model, FreshSpec):
        geometry_of(spec.model)
    else:
        # a mistake in it is told before minutes of reading; the weights are for whoever trains
        open_model_settings(spec.model)
    if address == "none" and spec.compute.workers > 1:
        raise SpecError(
            f"compute.workers: {spec.compute.workers}, but no Ray was named; add --address local, "
            "or leave it at 1"
        )
    if spec.compute.threads is not None:
        torch.set_num_threads(spec.compute.threads)
    pairs = [read_pairs(entry) for entry in spec.pairs]
    _tell_of(pairs, spec.batch)
    began = time.monotonic()
    show = _Shown(spec).show
    if address != "none":
        from jobs.train_workers import train_on_ray

        train_on_ray(spec, address, show)
    else:
        _tell_of_passes(spec.compute)
        with beginning(spec, pairs) as checkpoint:
            target = Path(spec.output.path)
            Training(spec=spec, checkpoint=checkpoint, pairs=pairs, target=target).run(show)
    if spec.adapter is not None:
        what = f"adapter {spec.adapter.name}"
    else:
        what = "vision tower" if spec.learns == "vision" else "backbone and both heads"
    print(f"{what} trained in {time.monotonic() - began:,.0f} s: {spec.output.path}")


@contextmanager
def beginning(spec: TrainSpec, pairs: Sequence[Pairs]) -> Iterator[Checkpoint]:
    """The checkpoint that a training begins from; a fresh one is gone afterwards."""
    if not isinstance(spec.model, FreshSpec):
        yield open_model(spec.model)
        return
    with tempfile.TemporaryDirectory(prefix="nightjar-") as scratch:
        directory = Path(scratch) / "fresh"
        texts = (text for some in pairs for text in some.texts())
        tokenizer = train_tokenizer(spec.model.vocabulary, texts)
        write_fresh(directory, spec.model, tokenizer, seed=spec.seed)
        yield open_model(str(directory))


def _tell_of(pairs: Sequence[Pairs], batch: BatchSpec) -> None:
    each = batch.pairs // batch.sources
    for some in pairs:
        wrong = some.set_aside
        more = f", {len(wrong):,} set aside" if wrong else ""
        print(f"{some.spec.uri}: {len(some):,} pairs{more}", file=sys.stderr)
        for one in wrong[:_EXAMPLES]:
            print(printed(f"  {one.uri} row {one.row}: {one.reason}"), file=sys.stderr)
        if len(some) < each:
            print(
                f"  a step takes {each:,} of them, so some are in it more than once: "
                "batch.pairs may be less",
                file=sys.stderr,
            )


def _tell_of_passes(compute: TrainingComputeSpec) -> None:
    device, dtype = computed_in(compute)
    slow = ""
    if dtype is torch.bfloat16 and not multiplies_bfloat16(device):
        slow = ", which has no instructions for it: leave compute.dtype at auto to be far faster"
    print(
        f"passes in {str(dtype).removeprefix('torch.')} on {name_of(device)}{slow}", file=sys.stderr
    )


class _Shown:
    """The steps of a training, told now and then, and every look at what was held out."""

    def __init__(self, spec: TrainSpec) -> None:
        self._spec, self._told = spec, 0.0
        self._began, self._first = time.monotonic(), 0

    def show(self, step: Step) -> None:
        """Tell of a step, if it is time to."""
        now = time.monotonic()
        self._first = self._first or step.step
        if now - self._told >= _TOLD_EVERY or step.step == step.steps:
            self._told = now
            each = (now - self._began) / (step.step - self._first + 1)
            parts = ", ".join(f"{name} {value:.3f}" for name, value in step.parts.items())
            print(
                f"step {step.step:,} of {step.steps:,}: loss {step.loss:.3f} ({parts}), "
                f"{step.tokens / step.seconds:,.0f} tokens/s, "
                f"{each * (step.steps - step.step):,.0f} s left",
                file=sys.stderr,
            )
        for entry, found in zip(self._spec.pairs, step.found, strict=False):
            print(f"  held out of {entry.uri}: {_told(found)}", file=sys.stderr)


def _told(found: Found) -> str:
    read = "" if found.read is None else f", {found.read:.1%} of the squares read"
    return (
        f"nDCG@10 {found.single:.3f} single, {found.multi:.3f} multi "
        f"({found.queries:,} queries of as many answers){read}"
    )
