"""Loaded: what a worker must know of the model of a job, and how it comes by it."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.copies import Fetched
from pipeline.job_file import located
from pipeline.model.checkpoint import Checkpoint
from pipeline.spec import JobSpec
from pipeline.stages.opened import open_model, processor_of

if TYPE_CHECKING:
    from pipeline.model.engine import Engine
    from pipeline.model.processor import Processor


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """Everything a worker must know of the model."""

    path: str
    """The spec's model.path, absolute when local."""
    hashes: Mapping[str, str]
    """sha256 of its files, by name: a worker refuses to load any other."""
    max_length: int
    """Tokens a text is cut to."""
    max_pixels: int | None
    """Bound of a resized image; None for the checkpoint's own."""
    image_pixels: int
    """Of an image before that, which is refused beyond."""
    dtype: str
    """What the network computes in, `auto` resolved."""
    token_budget: int | None
    """Of one forward pass; None for the default of the device."""
    compiled: bool | None
    """Whether torch compiles the layers; None for the default of the device."""

    @classmethod
    def of(cls, spec: JobSpec, checkpoint: Checkpoint, dtype: str) -> "ModelRecipe":
        """That of a job.

        Args:
            spec: the job.
            checkpoint: opened.
            dtype: what the network computes in, `auto` resolved.
        """
        budget = spec.compute.token_budget
        return cls(
            path=located(spec).model.path,
            hashes=checkpoint.hashes,
            max_length=spec.model.max_length,
            max_pixels=spec.model.max_pixels,
            image_pixels=spec.limits.image_pixels,
            dtype=dtype,
            token_budget=budget if isinstance(budget, int) else None,
            compiled=None if spec.compute.compile == "auto" else spec.compute.compile,
        )

    def open(self, fetched: Fetched | None = None) -> Checkpoint:
        """The checkpoint, as this host has it.

        Args:
            fetched: told how long a copy of it took, where there was none here.

        Raises:
            CheckpointError: it is damaged, or another than the job's.
        """
        checkpoint = open_model(self.path, fetched)
        checkpoint.demand_same(self.hashes)
        return checkpoint

    def load(
        self, adapter: str, device: str, *, threads: int | None, fetched: Fetched | None
    ) -> tuple["Engine", Callable[[str], "Engine"]]:
        """The network with its weights, warm; and what makes one that computes in float32.

        Args:
            adapter: the one that is merged first.
            device: a torch device, or auto.
            threads: of torch, on a CPU; None for as many as it has.
            fetched: told how long a copy of the checkpoint took, where there was none here.
        """
        with ThreadPoolExecutor(max_workers=1) as aside:
            # the network's library takes seconds to import: meanwhile weights are copied and hashed
            opening = aside.submit(self.open, fetched)
            import_module("pipeline.model.engine")
            checkpoint = opening.result()
        import torch

        from pipeline.model.budget import SMALLEST

        if threads is not None:
            torch.set_num_threads(threads)
        engine = self.engine(checkpoint, device, adapter)
        engine.warm_up()
        # a budget of its own is not worth measuring for single items
        slow = replace(self, dtype="float32", token_budget=SMALLEST, compiled=False)
        return engine, partial(slow.engine, checkpoint, device)

    def engine(self, checkpoint: Checkpoint, device: str, adapter: str) -> "Engine":
        """The network with its weights, and an adapter merged."""
        from pipeline.model.engine import Engine

        return Engine(
            checkpoint,
            adapter,
            device=device,
            dtype=self.dtype,
            token_budget=self.token_budget,
            compiled=self.compiled,
        )

    def processor(self) -> "Processor":
        """What turns items into its inputs; made once in each process."""
        settings = {name: h for name, h in self.hashes.items() if name.endswith(".json")}
        return processor_of(
            self.path,
            tuple(settings.items()),
            self.max_length,
            self.max_pixels,
            self.image_pixels,
        )
