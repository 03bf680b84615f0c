"""LoRA merged into its linear: W + (alpha / r) B A, in float32, rounded once.

The product is always made from the stored base weight, never by subtracting the last adapter from
a merged one: in bf16 that drifts with every switch. One adapter is merged at a time; switching
reads the base weights of its modules again, from the page cache when the file is local.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.layout import AdapterTensor
from pipeline.model.weight_files import StoredTensor


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

    def merged(self, module: str, task: str) -> Tensor:
        """The weight of a linear with that adapter in it: float32 [out, in]."""
        weight = self.base(f"{module}.weight").float()
        stored = self._checkpoint.adapters
        a = self._read(stored[AdapterTensor(task=task, module=module, side="A")]).float()
        b = self._read(stored[AdapterTensor(task=task, module=module, side="B")]).float()
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


def adapted_modules(checkpoint: Checkpoint) -> Iterator[str]:
    """The modules that carry an adapter, each once."""
    return iter(dict.fromkeys(name.module for name in checkpoint.adapters))
