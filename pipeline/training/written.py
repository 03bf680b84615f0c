"""Written: what was trained, as a checkpoint in the official layout.

All files of the checkpoint that it began from are there again, weights linked where the disk
allows; only what has learnt is new. Its model card is left out, which tells of other weights.
Values are rounded to bf16, as the official files have them, in the network itself as well: what is
asked of it afterwards is asked of what was written.

A trained decoder makes the adapters of its predecessor void: they begin anew, at no change. The
directory appears whole, by one rename.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import OutputError
from pipeline.model.adapters import WeightReader
from pipeline.model.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, Checkpoint
from pipeline.model.layout import (
    AdapterTensor,
    official_adapter_key,
    official_base_key,
)
from pipeline.training.learner import Learner

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CARD = "README.md"
_CPU = torch.device("cpu")


def demand_new(target: Path) -> None:
    """Refuse to write where something is.

    Raises:
        OutputError: there is.
    """
    if target.exists():
        raise OutputError(f"output.path: {str(target)!r} is there already; name a new directory")


def write_backbone(learner: Learner, target: Path, seed: int, *, keeps_adapters: bool) -> None:
    """Write a checkpoint with the trained base.

    Args:
        learner: with the base.
        target: a new directory.
        seed: of new adapters, which change nothing yet.
        keeps_adapters: whether the adapters are those that were there.

    Raises:
        OutputError: the target exists.
    """
    checkpoint = learner.checkpoint
    learner.round()
    with _appearing(target) as made:
        replaced = {str(stored.file.name) for stored in checkpoint.base.values()}
        void = set() if keeps_adapters else {ADAPTER_WEIGHTS}
        _link_others(checkpoint, made, replaced | {_INDEX} | void)
        base = {official_base_key(name): tensor for name, tensor in learner.base_weights()}
        _save(base, made / _WEIGHTS)
        if not keeps_adapters:
            generator = torch.Generator().manual_seed(seed)
            _write_adapters(
                made,
                {tensor: _unmoved(checkpoint, tensor, generator) for tensor in checkpoint.adapters},
            )


def write_adapter(learner: Learner, name: str, target: Path) -> None:
    """Write a checkpoint with an adapter more, or one that has learnt.

    Raises:
        OutputError: the target exists.
    """
    checkpoint = learner.checkpoint
    learner.round()
    with _appearing(target) as made:
        _link_others(checkpoint, made, {CONFIG, ADAPTER_CONFIG, ADAPTER_WEIGHTS})
        with WeightReader(checkpoint, _CPU) as reader:
            adapters = {tensor: reader.adapter(tensor) for tensor in checkpoint.adapters}
        adapters |= {
            t: p.detach().to(_CPU, torch.bfloat16) for t, p in learner.adapter_weights(name)
        }
        _write_adapters(made, adapters)
        names = list(dict.fromkeys([*checkpoint.task_names, name]))
        _write_json(made / ADAPTER_CONFIG, checkpoint.adapter_config)
        _write_json(made / CONFIG, {**checkpoint.config, "task_names": names})


def _unmoved(checkpoint: Checkpoint, tensor: AdapterTensor, generator: torch.Generator) -> Tensor:
    """LoRA before it has learnt: A uniform as peft draws it, B zero (arXiv 2106.09685)."""
    shape = checkpoint.adapters[tensor].shape
    if tensor.side == "B":
        return torch.zeros(shape, dtype=torch.bfloat16)
    bound = 1 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound, generator=generator).bfloat16()


def _write_adapters(made: Path, adapters: Mapping[AdapterTensor, Tensor]) -> None:
    tensors = {official_adapter_key(name): value.contiguous() for name, value in adapters.items()}
    (made / ADAPTER_WEIGHTS).parent.mkdir(exist_ok=True)
    _save(tensors, made / ADAPTER_WEIGHTS)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file(dict(tensors), path, {"format": "pt"})
    # the library makes files that nobody else may read
    path.chmod(path.parent.stat().st_mode & 0o666)


def _link_others(checkpoint: Checkpoint, made: Path, but: set[str]) -> None:
    for source in checkpoint.directory.rglob("*"):
        name = str(source.relative_to(checkpoint.directory))
        if not source.is_file() or name in but or name == _CARD:
            continue
        target = made / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".safetensors" and _linked(source, target):
            continue
        shutil.copyfile(source, target)


def _linked(source: Path, target: Path) -> bool:
    """Whether two directories may share a file: nobody edits weights in their place."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        # another disk, or one without links
        return False
    return True


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    demand_new(target)
    made = target.with_name(f".{target.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        yield made
        made.rename(target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
