"""A training by several workers on Ray, with Ray Train: the same batches, the same gradient.

Ray Train starts the workers, joins them to one process group, and starts them anew from the last
state that was kept when one of them or its node is lost. Every worker reads pairs and checkpoint
for itself, and each is told the vectors of the others' items (`pipeline.training.share`). The first
one looks, keeps and writes, so `output.path` must be one that all of them have: on one machine, or
a shared file system.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from jobs.train import beginning
from pipeline.errors import OutputError, RunError, UserError
from pipeline.stages.cluster import ON_HEAD, connected
from pipeline.storage import use_stores
from pipeline.training.loop import Step, Training
from pipeline.training.pairs import read_pairs
from pipeline.training.share import Together
from pipeline.training.spec import TrainSpec

_LOSSES = 3
"""Of workers, after which it is given up."""
_ASK_SECONDS = 1.0


class _Told:
    """What the first worker says, until it is asked."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._fault: UserError | None = None

    def step(self, step: Step) -> None:
        """A step is done."""
        self._steps.append(step)

    def fault(self, fault: UserError) -> None:
        """The training cannot go on, and starting it anew would not help."""
        self._fault = fault

    def take(self) -> tuple[list[Step], UserError | None]:
        """What was said since it was asked last."""
        steps, self._steps = self._steps, []
        return steps, self._fault


def train_on_ray(spec: TrainSpec, address: str, show: Callable[[Step], None]) -> None:
    """Train, and write the checkpoint.

    Args:
        spec: of the training.
        address: which Ray.
        show: told of every step.

    Raises:
        UserError: as `Training.run` does, or a worker does not see the output's directory.
        RunError: workers were lost too often.
    """
    target = Path(spec.output.path).absolute()
    scratch = _scratch(target)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        _fit(spec, target, address, show)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch(target: Path) -> Path:
    """Where Ray Train keeps its own state, which all workers must see."""
    return target.with_name(f"{target.name}.workers")


def _fit(spec: TrainSpec, target: Path, address: str, show: Callable[[Step], None]) -> None:
    with connected(address) as cluster:
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        told = ray.remote(_Told).options(**ON_HEAD).remote()
        on_gpu = cluster.gpus > 0 and spec.compute.device != "cpu"
        each = {"GPU": 1.0} if on_gpu else {"CPU": float(spec.compute.threads or 1)}
        output = spec.output.model_copy(update={"path": str(target)})
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "spec": spec.model_copy(update={"output": output}),
                "told": told,
                "on_gpu": on_gpu,
            },
            scaling_config=ScalingConfig(
                num_workers=spec.compute.workers, use_gpu=on_gpu, resources_per_worker=each
            ),
            run_config=RunConfig(
                name=spec.name,
                storage_path=str(_scratch(target)),
                failure_config=FailureConfig(max_failures=_LOSSES),
            ),
        )
        with _listening(told, show):
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise RunError(f"the workers were lost {_LOSSES + 1} times: {error}") from error
        _, fault = ray.get(told.take.remote())
    if fault is not None:
        raise fault


@contextmanager
def _listening(told: Any, show: Callable[[Step], None]) -> Iterator[None]:
    """Show each step soon after it is done, and all of them before this ends."""
    ended = threading.Event()

    def listen() -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(_ASK_SECONDS)
            steps, _ = ray.get(told.take.remote())
            for step in steps:
                show(step)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _work(config: dict[str, Any]) -> None:
    """What every worker does."""
    spec: TrainSpec = config["spec"]
    try:
        _train(spec, config["on_gpu"], config["told"])
    except UserError as error:
        ray.get(config["told"].fault.remote(error))


def _train(spec: TrainSpec, on_gpu: bool, told: Any) -> None:
    import torch

    target = Path(spec.output.path)
    if not _scratch(target).is_dir():
        raise OutputError(
            f"output.path: {spec.output.path!r} is not there on every worker; name a directory on "
            "a file system that all nodes share"
        )
    use_stores(spec.storage)
    if not on_gpu:
        torch.set_num_threads(spec.compute.threads or 1)
    pairs = [read_pairs(entry) for entry in spec.pairs]
    with beginning(spec, pairs) as checkpoint:
        training = Training(
            spec=spec, checkpoint=checkpoint, pairs=pairs, target=target, share=Together()
        )
        training.run(lambda step: ray.get(told.step.remote(step)))
