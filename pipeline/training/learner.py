"""Learner: the network with gradients, and the vectors that it makes of a batch.

In the first stage all weights learn, or the vision tower. In the second an adapter does, put beside
the linears by peft under the names of the official files, and nothing else has a gradient. Weights
are float32 wherever they learn; the passes may be in bfloat16 (autocast), scores and losses never
are.

A batch of more tokens than one pass may have passes twice (GradCache, arXiv 2101.06983): first
without gradients, to have all vectors and from these the gradient of each of them, then part by
part with that gradient. The sum is the same as of one pass, and of several workers (`share`).

Legend: B items, T tokens of a pack, M squares of its images (merged patches, one token each), H
hidden size, D size of a vector of a multi-vector, V tokens of the vocabulary.
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
from pipeline.model.layout import TOKENS, AdapterTensor, canonical_module
from pipeline.model.network import Network
from pipeline.model.packing import pack
from pipeline.model.pooling import single_vectors
from pipeline.model.processor import PreparedItem
from pipeline.model.staging import Courier, Pack, Stager
from pipeline.training.losses import MultiVectors
from pipeline.training.share import Share

_KERNEL = "runs"
"""It has gradients on every device and in every dtype."""


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Of all items of a batch, in their order."""

    singles_BH: Tensor
    """float32, of length one."""
    multi: MultiVectors
    """float32."""
    seen_MH: Tensor
    """What the vision tower has made of each square of all images: float32, of any length."""
    tokens_VH: Tensor
    """The embeddings of all tokens."""


Loss = Callable[[Vectors], Tensor]
"""What is to be made small, of the vectors of a batch."""


class Learner:
    """The network of a checkpoint, as it is trained."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        tokens: int,
        share: Share,
    ) -> None:
        """Load the base weights, without an adapter; nothing learns yet.

        Args:
            checkpoint: opened.
            device: of the weights.
            dtype: of the passes.
            tokens: tokens and image patches of one forward pass.
            share: the workers that do each step together.

        Raises:
            CheckpointError: a tensor cannot be read.
        """
        self.checkpoint = checkpoint
        self._pad = int(checkpoint.config["image_token_id"])
        self._device, self._dtype, self._tokens, self._share = device, dtype, tokens, share
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

    def learn_vision(self) -> None:
        """Have the vision tower learn, and nothing else: texts keep the vectors that they have."""
        self.network.model.visual.requires_grad_(True)

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
        share, seed = self._share, torch.initial_seed()
        packs = self._packs(items, share.size)
        mine = range(share.rank, len(packs), share.size)
        made = {}
        for number in mine:
            # what is left out of a pass is left out of both, whoever makes it
            torch.manual_seed(seed + number)
            with torch.set_grad_enabled(len(mine) == 1):
                made[number] = self._forward(items, packs[number])
        leaves = []
        for number, chosen in enumerate(packs):
            parts = made.get(number) or self._room(items, chosen)
            leaf = tuple(part.detach().clone() for part in parts)
            for part in leaf:
                share.spread(part, number % share.size)
            leaves.append(tuple(part.requires_grad_() for part in leaf))
        value = loss(self._vectors(items, packs, leaves))
        value.backward()  # type: ignore[no-untyped-call]
        for number in mine:
            if len(mine) > 1:
                torch.manual_seed(seed + number)
                made[number] = self._forward(items, packs[number])
            # a loss of one kind of vectors alone leaves the other without a gradient, and where the
            # vision tower learns alone a pass of texts has none
            counted = [
                (part, leaf.grad)
                for part, leaf in zip(made[number], leaves[number], strict=True)
                if leaf.grad is not None and part.requires_grad
            ]
            if counted:
                parts, gradients = zip(*counted, strict=True)
                torch.autograd.backward(parts, gradients)
        share.add_up([parameter for _, parameter in self.learning])
        return value.item()

    def _room(
        self, items: Sequence[PreparedItem], chosen: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Place for the vectors of a pack that another worker makes."""
        hidden = self.checkpoint.hidden_size
        tokens = sum(len(items[index].token_ids) for index in chosen)
        squares = sum(items[index].squares(self._pad) for index in chosen)
        sizes = (
            (len(chosen), hidden),
            (tokens, self.checkpoint.multi_vector_dim),
            (squares, hidden),
        )
        single, multi, seen = (torch.empty(size, device=self._device) for size in sizes)
        return single, multi, seen

    @torch.no_grad()
    def embed(self, items: Sequence[PreparedItem]) -> Vectors:
        """The vectors of items, without gradients."""
        self.network.eval()
        packs = self._packs(items, 1)
        found = self._vectors(items, packs, [self._forward(items, chosen) for chosen in packs])
        self.network.train()
        return found

    def _packs(self, items: Sequence[PreparedItem], workers: int) -> list[list[int]]:
        """Which items pass together: equally long ones side by side, as attention likes them."""
        costs = [self._stager.cost(item) for item in items]
        return pack(costs, min(self._tokens, sum(costs) // workers + max(costs)))

    def _forward(
        self, items: Sequence[PreparedItem], chosen: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Single vectors [B, H], those of tokens [T, D] and what is seen [M, H], of one pack."""
        staged: Pack = self._stager.stage([items[index] for index in chosen])
        self._courier.arrived()
        seen_MH = torch.empty(0, self.checkpoint.hidden_size, device=self._device)
        with self._precision():
            if staged.images is not None:
                seen_MH = self.network.see(staged.images)
            hidden_TH = self.network.decode(staged, seen_MH)
        hidden_TH = hidden_TH.float()
        singles_BH = single_vectors(hidden_TH, staged.lengths_G, staged.spans_B)
        projected_TD = self.network.multi_vector_projector(hidden_TH[: sum(staged.lengths)])
        return singles_BH, normalize(projected_TD, dim=-1), seen_MH.float()

    def _vectors(
        self,
        items: Sequence[PreparedItem],
        packs: Sequence[Sequence[int]],
        parts: Sequence[tuple[Tensor, ...]],
    ) -> Vectors:
        """Those of the packs, put in the order of the items."""
        order = [index for chosen in packs for index in chosen]
        back = torch.argsort(torch.tensor(order, device=self._device))
        singles_BH = torch.cat([single for single, _, _ in parts])[back]
        lengths_B = torch.tensor([len(item.token_ids) for item in items], device=self._device)
        longest = int(lengths_B.max())
        lengths_b = lengths_B[order]
        # padded by one gather, since each of many copies would have a gradient as large as all
        starts_b = torch.tensor(order, device=self._device) * longest - (
            lengths_b.cumsum(0) - lengths_b
        )
        flat_TD = torch.cat([multi for _, multi, _ in parts])
        place_T = starts_b.repeat_interleave(lengths_b) + torch.arange(
            len(flat_TD), device=self._device
        )
        empty_ND = flat_TD.new_zeros(len(items) * longest, flat_TD.shape[1])
        padded_BTD = empty_ND.index_copy(0, place_T, flat_TD).view(len(items), longest, -1)
        squares = [items[index].squares(self._pad) for index in order]
        seen = torch.split(torch.cat([seen for _, _, seen in parts]), squares)
        return Vectors(
            singles_BH=singles_BH,
            multi=MultiVectors(vectors_BTD=padded_BTD, lengths_B=lengths_B),
            seen_MH=torch.cat([seen[place] for place in back.tolist()]),
            tokens_VH=self.network.stored(TOKENS),
        )

    def _precision(self) -> AbstractContextManager[object]:
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)
