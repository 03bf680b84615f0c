"""`nightjar train --address`: several workers on a real cluster learn what one process does."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.end_to_end.clusters import Cluster, Finished, nightjar, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

_TWO = {"threads": 1, "workers": 2, "dtype": "float32"}
_TENSORS = ("model.safetensors", "adapters/adapter_model.safetensors")


def _train(spec: Path, output: str, address: str, **keys: Any) -> Finished:
    plain = yaml.safe_load(spec.read_text()) | {"steps": 8, "held_out": None, **keys}
    plain["output"] = {"path": str(spec.parent / output), "keep_every": 2}
    made = spec.parent / f"{output}.yaml"
    made.write_text(yaml.safe_dump(plain))
    return nightjar("train", made, "--address", address)


def _learnt(spec: Path, output: str) -> dict[str, torch.Tensor]:
    folder = spec.parent / output
    assert not list(spec.parent.glob(f"{output}.training")) + list(spec.parent.glob(f"{output}.w*"))
    return {
        f"{file}/{name}": tensor.float()
        for file in _TENSORS
        if (folder / file).exists()
        for name, tensor in load_file(folder / file).items()
    }


def _demand_close(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> None:
    assert some.keys() == others.keys()
    for name, tensor in some.items():
        # sums of another order, and Adam makes much of little; then rounded to bf16
        assert torch.allclose(tensor, others[name], atol=2e-3, rtol=2**-6), name


def test_two_workers_learn_what_one_process_does(training_spec: Path, two_nodes: Cluster) -> None:
    looking = {"held_out": {"share": 0.2, "every": 4}}
    alone = _train(training_spec, "alone", "none", **looking)
    assert alone.code == 0, alone.err
    together = _train(training_spec, "together", two_nodes.address, compute=_TWO, **looking)
    assert together.code == 0, together.err
    assert "adapter numbers trained in " in together.out
    assert "step 8 of 8: loss " in together.err
    assert together.err.count("held out of ") == 2
    _demand_close(_learnt(training_spec, "alone"), _learnt(training_spec, "together"))


def test_a_worker_that_is_lost_is_replaced_and_goes_on(
    training_spec: Path, two_nodes: Cluster
) -> None:
    alone = _train(training_spec, "alone", "none", steps=30)
    assert alone.code == 0, alone.err
    kept = training_spec.parent / "lost.training"
    killed: list[int] = []

    def kill() -> None:
        wait_until(lambda: any(kept.glob("step-*")), "a state that was kept")
        # on whichever node they are: the cluster of the session has as many as its tests have added
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return

    thread = threading.Thread(target=kill)
    thread.start()
    lost = _train(training_spec, "lost", two_nodes.address, compute=_TWO, steps=30)
    thread.join()
    assert lost.code == 0, lost.err
    assert killed
    _demand_close(_learnt(training_spec, "alone"), _learnt(training_spec, "lost"))


def test_a_mistake_that_only_a_worker_can_see_is_one_sentence(
    training_spec: Path, two_nodes: Cluster
) -> None:
    wrong = _train(training_spec, "wrong", two_nodes.address, compute=_TWO, loss={"dims": [7]})
    assert wrong.code == 2
    assert wrong.err.splitlines()[-1].startswith("nightjar: loss.dims: 7 is not one of ")
    assert "Traceback" not in wrong.err
