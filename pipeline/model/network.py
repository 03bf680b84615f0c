"""Network: the stock Qwen2.5-VL modules of transformers, and one packed pass through them.

Items of a pack, texts and images alike, are concatenated into one sequence without padding;
attention (`attention`) is causal within each item and blind across items. The modules are built on
the meta device and filled tensor by tensor, so loading needs one copy of the weights and no random
initialisation; the output head is never built, and no hidden states are kept but the last.

`Backbone` runs it to embed, with an adapter merged; the training room runs it with gradients.

Legend: T tokens of a pack, N image patches of a pack, M merged patches (one token each), H hidden
size, D size of a vector of a multi-vector.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from pipeline.errors import CheckpointError
from pipeline.model.attention import Kernel
from pipeline.model.checkpoint import Settings
from pipeline.model.staging import Images, Pack
from pipeline.model.vision import PATCHES, PatchGeometry, PatchProjection


class Network(nn.Module):
    """The modules of one checkpoint on one device; without weights until they are assigned.

    Its own attributes are named so that a module has the name that the official files give it.
    """

    def __init__(self, settings: Settings, kernel: Kernel, device: torch.device) -> None:
        """Build the modules.

        Args:
            settings: of the checkpoint.
            kernel: of attention, for this device and the dtype of the weights.
            device: of the weights.
        """
        super().__init__()
        self.patches = PatchGeometry(settings, device)
        self._device = device
        config = _library_config(settings)
        with torch.device("meta"):
            self.model = Qwen2_5_VLModel(config)
            self.model.visual.patch_embed = PatchProjection(settings.config["vision_config"])
            self.multi_vector_projector = nn.Linear(settings.hidden_size, settings.multi_vector_dim)
        # set after building: the library validates the name against its own list
        self.model.language_model.config._attn_implementation = kernel.registered
        self.model.visual.config._attn_implementation = kernel.registered
        self._rebuild_rotary_tables(config)

    def assign(self, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
        """Take a tensor as the parameter of that name.

        Args:
            name: canonical, as `layout` has it.
            tensor: in the shape of the official files.
            dtype: to which it is rounded.
        """
        if name == PATCHES:
            tensor = PatchProjection.folded(tensor)
        module, leaf = self._place(name)
        parameter = nn.Parameter(tensor.to(self._device, dtype), requires_grad=False)
        setattr(module, leaf, parameter)

    def stored(self, name: str) -> Tensor:
        """The parameter of that name in the shape of the official files."""
        module, leaf = self._place(name)
        if isinstance(module, PatchProjection):
            return module.unfolded()
        tensor: Tensor = getattr(module, leaf)
        return tensor

    def _place(self, name: str) -> tuple[nn.Module, str]:
        """The module that holds a tensor, and what it calls it."""
        if name == PATCHES:
            return self.model.visual.patch_embed, "weight_hP"
        path, _, leaf = name.rpartition(".")
        part = self if path.split(".")[0] not in _LIBRARY else self.model
        return part.get_submodule(path), leaf

    def demand_filled(self) -> None:
        """Refuse to go on with a parameter that nobody has assigned.

        Raises:
            CheckpointError: names the first few.
        """
        unfilled = [n for n, p in self.named_parameters() if p.device.type == "meta"]
        unfilled += [n for n, b in self.named_buffers() if b.device.type == "meta"]
        if unfilled:
            raise CheckpointError(
                f"the installed transformers has parameters this project does not load: "
                f"{', '.join(unfilled[:3])}"
            )

    def forward(self, pack: Pack) -> Tensor:
        """The last hidden states, after the final norm: [T, H] in the network's dtype."""
        return self.decode(pack, None if pack.images is None else self.see(pack.images))

    def decode(self, pack: Pack, seen_MH: Tensor | None) -> Tensor:
        """The same, of a pack whose images have been seen.

        Args:
            pack: what is read.
            seen_MH: of its images, what `see` has made of them; None for a pack of texts.
        """
        embedded_TH = self.model.language_model.embed_tokens(pack.token_ids_T)
        if pack.images is not None and seen_MH is not None:
            # under autocast what is seen is in another dtype than the table of embeddings
            embedded_TH[pack.images.pads_M] = seen_MH.to(embedded_TH.dtype)
        hidden_1TH: Tensor = self.model.language_model(
            inputs_embeds=embedded_TH.unsqueeze(0),
            # a dict bypasses the library's mask building: the bounds are the mask
            attention_mask={"full_attention": None},
            position_ids=pack.positions_31T,
            use_cache=False,
            cu_seq_lens_q=pack.bounds,
            max_length_q=pack.longest,
        ).last_hidden_state
        return hidden_1TH[0]

    def see(self, images: Images) -> Tensor:
        """The vision tower on all images of a pack: [M, H], a row for each merged patch."""
        sizes = [height * width * colours for height, width, colours in images.shapes]
        each = torch.split(images.pixels, sizes)
        patches_NP = torch.cat(
            [
                self.patches.cut(pixels.view(shape))
                for pixels, shape in zip(each, images.shapes, strict=True)
            ]
        )
        seen: Tensor = self.model.visual(
            patches_NP.to(self.model.visual.patch_embed.weight_hP.dtype),
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

    def _rebuild_rotary_tables(self, config: Qwen2_5_VLConfig) -> None:
        """Frequency tables are no weights: built on meta they hold garbage, so build them again."""
        decoder, vision = self.model.language_model, self.model.visual
        with torch.device(self._device):
            decoder.rotary_emb = type(decoder.rotary_emb)(config=config.text_config)
            vision.rotary_pos_emb = type(vision.rotary_pos_emb)(config.vision_config)


_LIBRARY = ("language_model", "visual")
"""Parts of the library's model; the projector is not."""


def _library_config(settings: Settings) -> Qwen2_5_VLConfig:
    """The stock configuration, in the library's present spelling.

    Left out are the dtypes, which would override the one asked for, and the code of the checkpoint,
    which is never run.
    """
    text = _without(settings.text_config, _FOREIGN_KEYS | {"rope_scaling", "rope_theta"})
    rope = settings.text_config.get("rope_scaling") or {}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": settings.text_config["rope_theta"],
        "mrope_section": rope["mrope_section"],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=_without(settings.config["vision_config"], _FOREIGN_KEYS),
        image_token_id=settings.config["image_token_id"],
    )


_FOREIGN_KEYS = frozenset(
    {"torch_dtype", "dtype", "auto_map", "architectures", "vision_config", "text_config"}
)


def _without(section: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}
