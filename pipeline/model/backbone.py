"""The network: the stock Qwen2.5-VL modules of transformers, one adapter merged, one packed pass.

Items of a pack, texts and images alike, are concatenated into one sequence without padding;
attention (`attention`) is causal within each item and blind across items. The modules are built on
the meta device and filled tensor by tensor, so loading needs one copy of the weights and no random
initialisation; the output head is never built, and no hidden states are kept but the last.

On CUDA the layers are compiled, which fuses what lies between the matrix products; each kind of
layer is compiled once, for every number of tokens. On a CPU compiling
costs every actor a minute and a C++ compiler, and gains a fifth (measured), so it is left to be
asked for and the library's modules run as they are: they are the reference.

Legend: T tokens of a pack, N image patches of a pack, H hidden size, D size of a vector of a
multi-vector.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from pipeline.errors import CheckpointError
from pipeline.model.adapters import MergedWeights, WeightReader, adapted_modules
from pipeline.model.attention import Kernel
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.layout import PROJECTOR
from pipeline.model.staging import Images, Pack
from pipeline.model.vision import PatchGeometry, PatchProjection

_SLICE = 512
"""Tokens of an MLP at a time on a CPU: its inner activations then stay in the cache."""
_PATCHES = "visual.patch_embed.proj.weight"


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
        self.patches = PatchGeometry(checkpoint, device)
        self.adapter = ""
        self.projector_weight_DH = torch.empty(0)
        self._device, self._dtype = device, dtype
        self._merged = MergedWeights(checkpoint, device, dtype)
        config = _library_config(checkpoint)
        with torch.device("meta"):
            self._model = Qwen2_5_VLModel(config)
        self._model.eval().requires_grad_(False)
        # set after building: the library validates the name against its own list
        self._model.language_model.config._attn_implementation = kernel.registered
        self._model.visual.config._attn_implementation = kernel.registered
        self._rebuild_rotary_tables(config)
        adapted = {f"{module}.weight" for module in adapted_modules(checkpoint)}
        with WeightReader(checkpoint, device) as reader:
            for name in checkpoint.base:
                if name == _PATCHES:
                    self._model.visual.patch_embed = PatchProjection(reader.base(name), dtype)
                elif not name.startswith(PROJECTOR) and name not in adapted:
                    self._assign(name, reader.base(name).to(dtype))
            self.projector_bias_D = reader.base(f"{PROJECTOR}.bias").float()
        self.switch(adapter)
        self._demand_filled()
        self._fit_to_device(compiled)

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
            if module == PROJECTOR:
                self.projector_weight_DH = weight
            else:
                self._assign(f"{module}.weight", weight)
        self.adapter = adapter

    @torch.inference_mode()
    def forward(self, pack: Pack) -> Tensor:
        """The last hidden states, after the final norm: [T, H] in the network's dtype."""
        embedded_TH = self._model.language_model.embed_tokens(pack.token_ids_T)
        if pack.images is not None:
            embedded_TH[pack.images.pads_M] = self._see(pack.images)
        hidden_1TH: Tensor = self._model.language_model(
            inputs_embeds=embedded_TH.unsqueeze(0),
            # a dict bypasses the library's mask building: the bounds are the mask
            attention_mask={"full_attention": None},
            position_ids=pack.positions_31T,
            use_cache=False,
            cu_seq_lens_q=pack.bounds,
            max_length_q=pack.longest,
        ).last_hidden_state
        return hidden_1TH[0]

    def _see(self, images: Images) -> Tensor:
        """The vision tower on all images of a pack: one row for each merged patch."""
        sizes = [height * width * colours for height, width, colours in images.shapes]
        each = torch.split(images.pixels, sizes)
        patches_NP = torch.cat(
            [
                self.patches.cut(pixels.view(shape))
                for pixels, shape in zip(each, images.shapes, strict=True)
            ]
        )
        seen: Tensor = self._model.visual(
            patches_NP.to(self._dtype),
            # what the library would work out from the grids is handed over instead
            grid_thw=None,
            position_ids=images.positions_N2,
            window_index=images.windows_M,
            cu_window_seqlens=images.window_bounds,
            max_window_seqlen=images.longest[0],
            cu_seqlens=images.image_bounds,
            max_seqlen=images.longest[1],
        ).pooler_output
        return seen

    def _assign(self, name: str, tensor: Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        module = self._model.get_submodule(path)
        setattr(module, leaf, nn.Parameter(tensor.to(self._device), requires_grad=False))

    def _rebuild_rotary_tables(self, config: Qwen2_5_VLConfig) -> None:
        """Frequency tables are no weights: built on meta they hold garbage, so build them again."""
        decoder, vision = self._model.language_model, self._model.visual
        with torch.device(self._device):
            decoder.rotary_emb = type(decoder.rotary_emb)(config=config.text_config)
            vision.rotary_pos_emb = type(vision.rotary_pos_emb)(config.vision_config)

    def _demand_filled(self) -> None:
        unfilled = [n for n, p in self._model.named_parameters() if p.device.type == "meta"]
        unfilled += [n for n, b in self._model.named_buffers() if b.device.type == "meta"]
        if unfilled:
            raise CheckpointError(
                f"the installed transformers has parameters this project does not load: "
                f"{', '.join(unfilled[:3])}"
            )

    def _fit_to_device(self, compiled: bool) -> None:
        for layer in (*self._model.language_model.layers, *self._model.visual.blocks):
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


def _library_config(checkpoint: Checkpoint) -> Qwen2_5_VLConfig:
    """The stock configuration, in the library's present spelling.

    Left out are the dtypes, which would override the one asked for, and the code of the checkpoint,
    which is never run.
    """
    text = _without(checkpoint.text_config, _FOREIGN_KEYS | {"rope_scaling", "rope_theta"})
    rope = checkpoint.text_config.get("rope_scaling") or {}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": checkpoint.text_config["rope_theta"],
        "mrope_section": rope["mrope_section"],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=_without(checkpoint.config["vision_config"], _FOREIGN_KEYS),
        image_token_id=checkpoint.config["image_token_id"],
    )


_FOREIGN_KEYS = frozenset(
    {"torch_dtype", "dtype", "auto_map", "architectures", "vision_config", "text_config"}
)


def _without(section: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}
