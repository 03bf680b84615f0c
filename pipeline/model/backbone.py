"""Backbone: the network of a checkpoint as it embeds, with one adapter merged and no gradients.

On CUDA the layers are compiled, which fuses what lies between the matrix products; each kind of
layer is compiled once, for every number of tokens. On a CPU compiling
costs every actor a minute and a C++ compiler, and gains a fifth (measured), so it is left to be
asked for and the library's modules run as they are: they are the reference.

Legend: T tokens of a pack, H hidden size, D size of a vector of a multi-vector.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.model.adapters import MergedWeights, WeightReader, adapted_modules
from pipeline.model.attention import Kernel
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.layout import PROJECTOR
from pipeline.model.network import Network
from pipeline.model.staging import Pack

_SLICE = 512
"""Tokens of an MLP at a time on a CPU: its inner activations then stay in the cache."""


class Backbone:
    """The network of one checkpoint on one device, with one adapter merged."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        adapter: str,
        kernel: Kernel,
        *,
        device: torch.device,
        dtype: torch.dtype,
        compiled: bool = False,
    ) -> None:
        """Build the modules and load every weight.

        Args:
            checkpoint: opened.
            adapter: to merge first.
            kernel: of attention, for this device and dtype.
            device: of the weights.
            dtype: of the weights and activations.
            compiled: whether to compile the layers, when they are first used.

        Raises:
            CheckpointError: no such adapter, or a tensor cannot be read.
        """
        self.adapter = ""
        self._device, self._dtype = device, dtype
        self._merged = MergedWeights(checkpoint, device, dtype)
        self._network = Network(checkpoint, kernel, device).eval()
        self.patches = self._network.patches
        adapted = {f"{module}.weight" for module in adapted_modules(checkpoint)}
        with WeightReader(checkpoint, device) as reader:
            for name in checkpoint.base:
                if name not in adapted:
                    self._assign(name, reader.base(name))
        self.switch(adapter)
        self._network.demand_filled()
        self._fit_to_device(compiled)

    @property
    def projector_weight_DH(self) -> Tensor:
        """Of the multi-vector head, with its adapter merged: float32."""
        return self._network.multi_vector_projector.weight

    @property
    def projector_bias_D(self) -> Tensor:
        """Likewise."""
        return self._network.multi_vector_projector.bias

    @property
    def kept_adapters(self) -> tuple[str, ...]:
        """The adapters to which a switch is only a change of pointers."""
        return self._merged.kept

    def switch(self, adapter: str) -> None:
        """Take the merged weights of another adapter.

        Raises:
            CheckpointError: no such adapter.
        """
        if adapter == self.adapter:
            return
        # until all is there it is neither the one nor the other
        self.adapter = ""
        for module, weight in self._merged.of(adapter):
            self._assign(f"{module}.weight", weight)
        self.adapter = adapter

    @torch.inference_mode()
    def forward(self, pack: Pack) -> Tensor:
        """The last hidden states, after the final norm: [T, H] in the network's dtype."""
        hidden_TH: Tensor = self._network(pack)
        return hidden_TH

    def _assign(self, name: str, tensor: Tensor) -> None:
        # multi-vectors are made in float32 whatever the network's dtype
        self._network.assign(
            name, tensor, torch.float32 if name.startswith(PROJECTOR) else self._dtype
        )

    def _fit_to_device(self, compiled: bool) -> None:
        model = self._network.model
        for layer in (*model.language_model.layers, *model.visual.blocks):
            if compiled:
                layer.compile(fullgraph=True, dynamic=True)
            elif self._device.type == "cpu":
                layer.mlp.forward = _in_slices(layer.mlp.forward)


def _in_slices(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same, a few thousand tokens at a time: rows do not depend on one another."""

    def sliced(hidden: Tensor) -> Tensor:
        # even slices: a last one of a few rows would be rounded differently
        count = -(-hidden.shape[-2] // _SLICE)
        if count <= 1:
            return forward(hidden)
        return torch.cat([forward(part) for part in hidden.chunk(count, dim=-2)], dim=-2)

    return sliced
