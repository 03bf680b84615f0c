"""The network: the stock Qwen2.5-VL modules of transformers, one adapter merged, one packed pass.

Items of a pack, texts and images alike, are concatenated into one sequence without padding;
attention is causal within each item and blind across items. This goes through transformers'
attention interface, so no model code is copied. The modules are built on the meta device and
filled tensor by tensor, so loading needs one copy of the weights and no random initialisation; the
output head is never built.

Legend: T tokens of a pack, N image patches of a pack, H hidden size, P values of a patch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

from pipeline.errors import CheckpointError
from pipeline.model.adapters import WeightReader, adapted_modules
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.images import Pixels
from pipeline.model.layout import PROJECTOR
from pipeline.model.processor import PreparedItem

_PACKED = "nightjar_packed"
_SMALLEST_PACK = 16
"""Below about ten rows a CPU matrix product takes another path and rounds differently."""


def packed_attention(
    module: nn.Module,
    query_1hTd: Tensor,
    key_1hTd: Tensor,
    value_1hTd: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    segments: Sequence[tuple[int, int]],
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each segment [start, stop) of the pack.

    The signature is that of transformers' attention interface, which passes more than is used.
    """
    attended = torch.empty_like(query_1hTd)
    for start, stop in segments:
        attended[:, :, start:stop] = scaled_dot_product_attention(
            query_1hTd[:, :, start:stop],
            key_1hTd[:, :, start:stop],
            value_1hTd[:, :, start:stop],
            is_causal=True,
            scale=scaling,
            enable_gqa=True,
        )
    return attended.transpose(1, 2), None


AttentionInterface.register(_PACKED, packed_attention)


class Backbone:
    """The network of one checkpoint on one device, with one adapter merged."""

    def __init__(
        self, checkpoint: Checkpoint, adapter: str, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Build the modules and load every weight.

        Raises:
            CheckpointError: no such adapter, or a tensor cannot be read.
        """
        self.device, self.dtype = device, dtype
        self._checkpoint = checkpoint
        self._image_token = int(checkpoint.config["image_token_id"])
        self._patches = PatchGeometry(checkpoint)
        config = _library_config(checkpoint)
        with torch.device("meta"):
            self._model = Qwen2_5_VLModel(config)
        self._model.eval().requires_grad_(False)
        # set after building: the library validates the name against its own list
        self._model.language_model.config._attn_implementation = _PACKED
        self._model.visual.config._attn_implementation = "sdpa"
        self._rebuild_rotary_tables(config)
        self.adapter = ""
        self.projector_weight_DH = torch.empty(0)
        self.projector_bias_D = torch.empty(0)
        with WeightReader(checkpoint, device) as reader:
            for name in checkpoint.base:
                if not name.startswith(PROJECTOR):
                    self._assign(name, reader.base(name).to(dtype))
            self.projector_bias_D = reader.base(f"{PROJECTOR}.bias").float()
        self._demand_filled()
        self.switch(adapter)

    def switch(self, adapter: str) -> None:
        """Merge another adapter, from the stored base weights.

        Raises:
            CheckpointError: no such adapter.
        """
        if adapter == self.adapter:
            return
        self._checkpoint.demand_adapters([adapter])
        # until all is merged it is neither the one nor the other
        self.adapter = ""
        with WeightReader(self._checkpoint, self.device) as reader:
            for module in adapted_modules(self._checkpoint):
                merged = reader.merged(module, adapter)
                if module == PROJECTOR:
                    self.projector_weight_DH = merged
                else:
                    self._assign(f"{module}.weight", merged.to(self.dtype))
        self.adapter = adapter

    @torch.inference_mode()
    def forward(self, items: Sequence[PreparedItem]) -> list[Tensor]:
        """Each item's last hidden states, after the final norm: [T_i, H] in the network's dtype."""
        lengths = [len(item.token_ids) for item in items]
        ids_T = np.concatenate([item.token_ids for item in items])
        positions_3T = np.concatenate([self._positions(item) for item in items], axis=1)
        segments = _segments(lengths)
        short = _SMALLEST_PACK - len(ids_T)
        if short > 0:
            # a dummy segment of pads at the end, whose hidden states nobody reads
            segments.append((len(ids_T), _SMALLEST_PACK))
            ids_T = np.pad(ids_T, (0, short))
            positions_3T = np.pad(positions_3T, ((0, 0), (0, short)))
        ids = torch.from_numpy(ids_T.astype(np.int64)).to(self.device)
        embedded_TH = self._model.language_model.embed_tokens(ids)
        images = [item.pixels for item in items if item.pixels is not None]
        if images:
            embedded_TH[ids == self._image_token] = self._see(images)
        hidden_1TH = self._model.language_model(
            inputs_embeds=embedded_TH.unsqueeze(0),
            # a dict bypasses the library's mask building: the segments are the mask
            attention_mask={"full_attention": None},
            position_ids=torch.from_numpy(positions_3T).to(self.device).unsqueeze(1),
            use_cache=False,
            segments=segments,
        ).last_hidden_state
        return [hidden_1TH[0, start:stop] for start, stop in _segments(lengths)]

    def _see(self, images: Sequence[Pixels]) -> Tensor:
        """The vision tower on all images of a pack: one row for each merged patch."""
        patches_NP = torch.cat(
            [self._patches.cut(torch.tensor(pixels, device=self.device)) for pixels in images]
        )
        grids = torch.tensor([self._patches.grid(pixels) for pixels in images])
        seen: Tensor = self._model.visual(
            patches_NP.to(self.dtype), grid_thw=grids.to(self.device)
        ).pooler_output
        return seen

    def _positions(self, item: PreparedItem) -> NDArray[np.int64]:
        """M-RoPE positions (time, height, width) as `get_rope_index` gives them: [3, T]."""
        total = len(item.token_ids)
        if item.pixels is None:
            return np.broadcast_to(np.arange(total), (3, total))
        _, rows, columns = self._patches.grid(item.pixels)
        rows, columns = rows // self._patches.merge, columns // self._patches.merge
        first = int(np.argmax(item.token_ids == self._image_token))
        after = total - first - rows * columns
        before = np.broadcast_to(np.arange(first), (3, first))
        y, x = np.divmod(np.arange(rows * columns), columns)
        pads = first + np.stack([np.zeros_like(y), y, x])
        resumed = first + max(rows, columns) + np.arange(after)
        return np.concatenate([before, pads, np.broadcast_to(resumed, (3, after))], axis=1)

    def _assign(self, name: str, tensor: Tensor) -> None:
        path, _, leaf = name.rpartition(".")
        module = self._model.get_submodule(path)
        setattr(module, leaf, nn.Parameter(tensor.to(self.device), requires_grad=False))

    def _rebuild_rotary_tables(self, config: Qwen2_5_VLConfig) -> None:
        """Frequency tables are no weights: built on meta they hold garbage, so build them again."""
        decoder, vision = self._model.language_model, self._model.visual
        with torch.device(self.device):
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


class PatchGeometry:
    """How the vision tower cuts an image."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        vision, preprocessor = checkpoint.config["vision_config"], checkpoint.preprocessor
        self.patch = int(vision["patch_size"])
        self.merge = int(vision["spatial_merge_size"])
        self.frames = int(vision["temporal_patch_size"])
        # values are 0..255, the published mean and deviation are for 0..1
        self._mean_3 = 255 * torch.tensor(preprocessor["image_mean"], dtype=torch.float32)
        self._deviation_3 = 255 * torch.tensor(preprocessor["image_std"], dtype=torch.float32)

    def grid(self, pixels: Pixels) -> tuple[int, int, int]:
        """(time, rows, columns) of its patches."""
        return 1, pixels.shape[0] // self.patch, pixels.shape[1] // self.patch

    def patches(self, pixels: Pixels) -> int:
        """How many patches it has."""
        _, rows, columns = self.grid(pixels)
        return rows * columns

    def cut(self, pixels_yx3: Tensor) -> Tensor:
        """Normalised patches in the tower's order: float32 [N, P].

        Patches come merge block by merge block (2 x 2), each as (channel, frame, y, x) with the
        one frame repeated, as in the library's image processor.
        """
        mean, deviation = (t.to(pixels_yx3.device) for t in (self._mean_3, self._deviation_3))
        normal_yx3 = (pixels_yx3.float() - mean) / deviation
        rows, columns = (side // self.patch // self.merge for side in pixels_yx3.shape[:2])
        blocks = normal_yx3.view(
            rows, self.merge, self.patch, columns, self.merge, self.patch, 3
        ).permute(0, 3, 1, 4, 6, 2, 5)
        patches_N3yx = blocks.reshape(-1, 3, 1, self.patch, self.patch)
        return patches_N3yx.expand(-1, -1, self.frames, -1, -1).flatten(1)


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


def _segments(lengths: Sequence[int]) -> list[tuple[int, int]]:
    stops = np.cumsum(lengths).tolist()
    return list(zip([0, *stops[:-1]], stops, strict=True))
