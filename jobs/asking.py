"""Asking: queries embedded as the rows of a dataset were, with the adapter and prompt that fit.

The checkpoint is the one that the dataset's job names, or another place of the same: what it makes
must have the dataset's fingerprint, or distances would mean nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.dataset import Dataset
from pipeline.errors import RowError, SpecError
from pipeline.fingerprint import fingerprint
from pipeline.folder import Folder
from pipeline.job_file import kept_job
from pipeline.spec import JobSpec
from pipeline.stores import StoreSpec
from pipeline.tasks import ADAPTERS, Task, task_named, tasks_of

if TYPE_CHECKING:
    from pipeline.model.engine import Engine
    from pipeline.model.outputs import Embeddings
    from pipeline.model.processor import PreparedItem, Processor


@dataclass(frozen=True, kw_only=True)
class Named:
    """Where a user has said what is asked, so that a mistake can be told there."""

    model: str
    """Of the checkpoint."""
    version: str
    """Of the version."""


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Embeds queries for a dataset."""

    processor: "Processor"
    """As of the dataset's job."""
    engine: "Engine"
    """Likewise."""
    dim: int | None
    """Size of the dataset's largest single vectors; None where it has none."""
    matryoshka_dims: tuple[int, ...]
    """The checkpoint's."""

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        model: Mapping[str, Any],
        storage: Sequence[StoreSpec],
        adapter: str,
        named: Named,
    ) -> "Asker":
        """Load the checkpoint that a dataset was made with.

        Args:
            dataset: that is asked.
            model: keys of a job's `model` that count more than those of the dataset's job, such as
                where the checkpoint is.
            storage: how object stores are reached.
            adapter: merged first.
            named: where the user has said so.

        Raises:
            SpecError: it is not the checkpoint that the dataset was made with.
            CheckpointError: there is none.
        """
        # torch takes seconds to import: mistakes are told before
        job = _job(dataset, model, storage)
        from pipeline.model.budget import SMALLEST
        from pipeline.model.engine import Engine
        from pipeline.model.processor import Processor
        from pipeline.schema import single_types
        from pipeline.stages.opened import open_model, settle_by

        checkpoint = open_model(job.model.path)
        dtype = _compute_dtype(dataset)
        made_by = fingerprint(settle_by(job, checkpoint), checkpoint.hashes, dtype)
        _demand_same(dataset, job.model.path, made_by, named)
        sizes = [kind.list_size for kind in single_types(dataset.schema).values()]
        processor = Processor(
            checkpoint, max_length=job.model.max_length, max_pixels=job.model.max_pixels
        )
        # a budget of its own is not worth measuring for a few queries
        engine = Engine(checkpoint, adapter, dtype=dtype, token_budget=SMALLEST, compiled=False)
        return cls(
            processor=processor,
            engine=engine,
            dim=max(sizes, default=None),
            matryoshka_dims=checkpoint.matryoshka_dims,
        )

    def ask(self, queries: Mapping[str, str | bytes], task: Task, multi: bool) -> "Embeddings":
        """Vectors of texts, and of images as encoded bytes, in their order.

        Args:
            queries: by what they are called where one of them is told to be wrong.
            task: of all of them.
            multi: whether multi-vectors are wanted.

        Raises:
            SpecError: one cannot be embedded.
        """
        self.engine.switch(task.adapter)
        prepared = [self._prepared(name, query, task) for name, query in queries.items()]
        dims = [] if self.dim is None else [self.dim]
        found = self.engine.embed(prepared, dims=dims, multi=multi)
        for at, fault in found.faults.items():
            raise _not_embedded(list(queries)[at], fault)
        return found

    def _prepared(self, name: str, query: str | bytes, task: Task) -> "PreparedItem":
        try:
            if isinstance(query, str):
                return self.processor.text(query, task)
            return self.processor.image(query)
        except RowError as fault:
            raise _not_embedded(name, fault) from None


def _not_embedded(name: str, fault: RowError) -> SpecError:
    return SpecError(f"{name} cannot be embedded: {fault}")


def _job(dataset: Dataset, model: Mapping[str, Any], storage: Sequence[StoreSpec]) -> JobSpec:
    """The job of a dataset, with other keys of its model."""
    # JSON is YAML that means itself
    overrides = [
        f"model.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in model.items()
    ]
    job = kept_job(Folder(dataset.uri), overrides, storage)
    dtype = _compute_dtype(dataset)
    if model.get("dtype", "auto") not in ("auto", dtype):
        raise SpecError(
            f"model.dtype: {job.model.dtype!r} is not what version {dataset.version} was "
            f"computed in, which is {dtype}; leave it out"
        )
    return job


def _compute_dtype(dataset: Dataset) -> str:
    """What the network computed in."""
    return str((dataset.schema.metadata or {})[b"compute_dtype"], "ascii")


def _demand_same(dataset: Dataset, model: str, made_by: str, named: Named) -> None:
    """Refuse vectors that have another fingerprint than those of a dataset."""
    if made_by != dataset.entry.fingerprint:
        raise SpecError(
            f"{named.model}: {model!r} with the settings of the dataset's last job makes vectors "
            f"of fingerprint {made_by[:8]}, and version {dataset.version} has "
            f"{dataset.entry.fingerprint[:8]}; name the checkpoint that made it with "
            f"{named.model}, or a version that this one made with {named.version}"
        )


def asking_task(task: str | None, adapters: Sequence[str]) -> Task:
    """The task of a query.

    Args:
        task: that was named; None for the one that fits the rows.
        adapters: of the rows; none for a dataset without rows.

    Raises:
        SpecError: it is none, or the dataset has no row that can be compared with it.
    """
    there = dict.fromkeys(adapters or ADAPTERS)
    if task is None:
        return tasks_of(next((name for name in ADAPTERS if name in there), next(iter(there))))[0]
    named = task_named(task, "--task")
    if named.adapter not in there:
        raise SpecError(
            f"--task: {task!r} is asked of rows of {named.adapter}, and the dataset has rows of "
            f"{', '.join(there)} alone"
        )
    return named
