"""Learner: the network with gradients, and the vectors that it makes of a batch.

In the first stage all weights learn. In the second an adapter does, put beside the linears by peft
under the names of the official files, and nothing else has a gradient. Weights are float32 wherever
they learn; on CUDA the passes are in bfloat16.

A batch of more tokens than one pass may have passes twice (GradCache, arXiv 2101.06983): first
without gradients, to have all vectors and from these the gradient of each of them, then part by
part with that gradient. The sum is the same as of one pass.

Legend: B items, T tokens of a pack, H hidden size, D size of a vector of a multi-vector.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.model.adapters import WeightReader
from pipeline.model.attention import kernel_named
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.layout import AdapterTensor, canonical_module
from pipeline.model.network import Network
from pipeline.model.packing import pack
from pipeline.model.pooling import single_vectors
from pipeline.model.processor import PreparedItem
from pipeline.model.staging import Courier, Pack, Stager
from pipeline.training.losses import MultiVectors

_KERNEL = "runs"
"""It has gradients on every device and in every dtype."""


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Of all items of a batch, in their order."""

    singles_BH: Tensor
    """float32, of length one."""
    multi: MultiVectors
    """float32."""


Loss = Callable[[Vectors], Tensor]
"""What is to be made small, of the vectors of a batch."""


class Learner:
    """The network of a checkpoint, as it is trained."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, tokens: int) -> None:
        """Load the base weights, without an adapter; nothing learns yet.

        Args:
            checkpoint: opened.
            device: of the weights.
            tokens: tokens and image patches of one forward pass.

        Raises:
            CheckpointError: a tensor cannot be read.
        """
        self.checkpoint = checkpoint
        self._device, self._tokens = device, tokens
        self.network = Network(checkpoint, kernel_named(_KERNEL), device)
        with WeightReader(checkpoint, device) as reader:
            for name in checkpoint.base:
                self.network.assign(name, reader.base(name), torch.float32)
        self.network.demand_filled()
        courier = Courier(device)
        self._stager = Stager(checkpoint, self.network.patches, courier, bounds_on_host=True)
        self._courier = courier

    def learn_all(self) -> None:
        """Have all weights learn: the first stage."""
        self.network.requires_grad_(True)

    def learn_adapter(self, name: str, config: LoraConfig) -> None:
        """Have an adapter learn, and nothing else: the second stage.

        One that the checkpoint has goes on from its weights; a new one begins at no change
        (LoRA, arXiv 2106.09685: A random, B zero).
        """
        get_peft_model(self.network, config, adapter_name=name)
        with WeightReader(self.checkpoint, self._device) as reader, torch.no_grad():
            for tensor, parameter in self.adapter_weights(name):
                if tensor in self.checkpoint.adapters:
                    parameter.copy_(reader.adapter(tensor))

    def adapter_weights(self, name: str) -> Iterator[tuple[AdapterTensor, nn.Parameter]]:
        """The parameters of an adapter, by what they are called in a checkpoint."""
        for key, parameter in self.network.named_parameters():
            module, found, rest = key.partition(".lora_")
            if found and rest.split(".")[1] == name:
                tensor = AdapterTensor(task=name, module=canonical_module(module), side=rest[0])
                yield tensor, parameter

    def base_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The base tensors as they are stored: bf16, by their canonical names."""
        for name in self.checkpoint.base:
            yield name, self.network.stored(name).detach().to("cpu", torch.bfloat16).contiguous()

    @torch.no_grad()
    def round(self) -> None:
        """Round what has learnt to what a checkpoint holds of it."""
        for _, parameter in self.learning:
            parameter.copy_(parameter.bfloat16())

    @property
    def learning(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that learn, by name."""
        return [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]

    def step(self, items: Sequence[PreparedItem], loss: Loss) -> float:
        """Add the gradient of a loss of a batch to the parameters'; the loss."""
        packs = self._packs(items)
        if len(packs) == 1:
            value = loss(self._vectors(items, packs, [self._forward(items, packs[0])]))
            value.backward()  # type: ignore[no-untyped-call]
            return value.item()
        seed, leaves = torch.initial_seed(), []
        for number, chosen in enumerate(packs):
            # what is left out of a pass is left out of both
            torch.manual_seed(seed + number)
            with torch.no_grad():
                made = self._forward(items, chosen)
            leaves.append(tuple(part.requires_grad_() for part in made))
        value = loss(self._vectors(items, packs, leaves))
        value.backward()  # type: ignore[no-untyped-call]
        for number, (chosen, parts) in enumerate(zip(packs, leaves, strict=True)):
            torch.manual_seed(seed + number)
            torch.autograd.backward(self._forward(items, chosen), [part.grad for part in parts])
        return value.item()

    @torch.no_grad()
    def embed(self, items: Sequence[PreparedItem]) -> Vectors:
        """The vectors of items, without gradients."""
        self.network.eval()
        packs = self._packs(items)
        found = self._vectors(items, packs, [self._forward(items, chosen) for chosen in packs])
        self.network.train()
        return found

    def _packs(self, items: Sequence[PreparedItem]) -> list[list[int]]:
        """Which items pass together: equally long ones side by side, as attention likes them."""
        costs = [self._stager.cost(item) for item in items]
        return pack(costs, self._tokens)

    def _forward(
        self, items: Sequence[PreparedItem], chosen: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Single vectors [B, H] and the vectors of all tokens [T, D] of one pack."""
        staged: Pack = self._stager.stage([items[index] for index in chosen])
        self._courier.arrived()
        with self._precision():
            hidden_TH = self.network(staged)
        hidden_TH = hidden_TH.float()
        singles_BH = single_vectors(hidden_TH, staged.lengths_G, staged.spans_B)
        projected_TD = self.network.multi_vector_projector(hidden_TH[: sum(staged.lengths)])
        return singles_BH, normalize(projected_TD, dim=-1)

    def _vectors(
        self,
        items: Sequence[PreparedItem],
        packs: Sequence[Sequence[int]],
        parts: Sequence[tuple[Tensor, ...]],
    ) -> Vectors:
        """Those of the packs, put in the order of the items."""
        order = [index for chosen in packs for index in chosen]
        back = torch.argsort(torch.tensor(order, device=self._device))
        singles_BH = torch.cat([single for single, _ in parts])[back]
        lengths = [len(items[index].token_ids) for index in order]
        ragged = torch.split(torch.cat([multi for _, multi in parts]), lengths)
        padded_BTD = nn.utils.rnn.pad_sequence(list(ragged), batch_first=True)[back]
        lengths_B = torch.tensor(lengths, device=self._device)[back]
        return Vectors(
            singles_BH=singles_BH, multi=MultiVectors(vectors_BTD=padded_BTD, lengths_B=lengths_B)
        )

    def _precision(self) -> AbstractContextManager[object]:
        if self._device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()
