"""LoRA merged into its linear: W + (alpha / r) B A, in float32, rounded once.

The product is always made from the stored base weight, never by subtracting the last adapter from
a merged one: in bf16 that drifts with every switch. The merged weights of each adapter that has
been used are kept while memory allows (5.6 GB each in bf16 for the published geometry), so a switch
back is a change of pointers; where it does not, the base weights are read and merged again, from
the page cache when the files are local. Either way the bits are the same.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.device import free_memory
from pipeline.model.layout import PROJECTOR, AdapterTensor
from pipeline.model.weight_files import StoredTensor

_ROOM = {"cpu": 8, "cuda": 2}
"""A copy is kept when free memory holds this many: one for the next adapter, one for the forward
pass, and on a CPU more, since its memory is shared with all that runs there."""


class WeightReader:
    """Reads single tensors of a checkpoint; each file is mapped once. A context manager."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._device = device
        self._stack = ExitStack()
        self._files: dict[Path, safe_open] = {}

    def __enter__(self) -> "WeightReader":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()
        self._files.clear()

    def base(self, name: str) -> Tensor:
        """A base tensor by its canonical name, in its stored dtype."""
        return self._read(self._checkpoint.base[name])

    def adapter(self, tensor: AdapterTensor) -> Tensor:
        """A tensor of an adapter, in its stored dtype."""
        return self._read(self._checkpoint.adapters[tensor])

    def merged(self, module: str, task: str) -> Tensor:
        """The weight of a linear with that adapter in it: float32 [out, in]."""
        weight = self.base(f"{module}.weight").float()
        a, b = (
            self.adapter(AdapterTensor(task=task, module=module, side=side)).float()
            for side in "AB"
        )
        return weight.addmm_(b, a, alpha=self._checkpoint.lora_scale)

    def _read(self, stored: StoredTensor) -> Tensor:
        try:
            file = self._files.get(stored.file)
            if file is None:
                file = self._stack.enter_context(
                    safe_open(stored.file, framework="pt", device=str(self._device))
                )
                self._files[stored.file] = file
            tensor: Tensor = file.get_tensor(stored.key)
        except Exception as error:  # safetensors raises its own, unexported exception
            raise CheckpointError(
                f"{stored.file}: tensor {stored.key} cannot be read: {error}"
            ) from error
        return tensor


class MergedWeights:
    """The merged weights of one checkpoint on one device, adapter by adapter."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._device = device
        self._dtype = dtype
        self._kept: dict[str, Mapping[str, Tensor]] = {}

    @property
    def kept(self) -> tuple[str, ...]:
        """The adapters whose weights are there."""
        return tuple(self._kept)

    def of(self, adapter: str) -> Iterator[tuple[str, Tensor]]:
        """(module, weight [out, in]) of every adapted module, the projector's in float32.

        Whoever takes them lets go of the last adapter's one by one, so that two never have to fit.

        Raises:
            CheckpointError: no such adapter, or a tensor cannot be read.
        """
        self._checkpoint.demand_adapters([adapter])
        if adapter in self._kept:
            yield from self._kept[adapter].items()
            return
        if not self._has_room():
            self._kept.clear()
        merged: dict[str, Tensor] = {}
        with WeightReader(self._checkpoint, self._device) as reader:
            for module in adapted_modules(self._checkpoint):
                weight = reader.merged(module, adapter)
                merged[module] = weight if module == PROJECTOR else weight.to(self._dtype)
                yield module, merged[module]
        self._kept[adapter] = merged

    def _has_room(self) -> bool:
        """Whether another copy may be made beside those that are kept."""
        if not self._kept:
            return True
        size = sum(tensor.nbytes for tensor in next(iter(self._kept.values())).values())
        return free_memory(self._device) > _ROOM[self._device.type] * size


def adapted_modules(checkpoint: Checkpoint) -> Iterator[str]:
    """The modules that carry an adapter, each once."""
    return iter(dict.fromkeys(name.module for name in checkpoint.adapters))
