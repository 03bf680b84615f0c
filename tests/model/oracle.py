"""A second, independent computation of the embeddings: slow, plain, fp32, one item at a time.

It shares no code with `pipeline.model` and takes the other way at every fork: the stock
transformers forward instead of a packed one, LoRA beside each linear instead of merged into it,
the library's own `get_rope_index` and eager attention with its dense mask. What both must agree on
is the model. Against the published reference code in fp32 this method differs by at most 5e-7
(single) and 4e-6 (multi).

Shapes: T tokens of one item, D hidden, P patches, R LoRA rank.
"""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

# Written out here and not taken from `pipeline.tasks`: a wrong entry there must not pass.
ADAPTER_AND_PREFIX = {
    "retrieval.query": ("retrieval", "Query: "),
    "retrieval.passage": ("retrieval", "Passage: "),
    "code.query": ("code", "Query: "),
    "code.passage": ("code", "Passage: "),
    "text-matching": ("text-matching", "Query: "),
}
IMAGE_PROMPT = (
    "<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>Describe the image.<|im_end|>\n"
)
IMAGE_PAD = "<|image_pad|>"
LONGEST = 32768

Item = str | bytes | Image.Image


@dataclass(frozen=True, kw_only=True)
class OracleEmbedding:
    """What one item should give."""

    single: np.ndarray
    """float32 [dim], unit length."""
    multi: np.ndarray
    """float32 [T, 128], each row of unit length."""
    n_tokens: int
    """Tokens that went through the model, after truncation."""
    truncated: bool
    """Whether `max_length` cut tokens away."""


class LoraBeside(nn.Module):
    """A linear and, beside it, one unmerged LoRA per adapter: y = Wx + b + scale * B(Ax)."""

    def __init__(self, linear: nn.Linear, scale: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.pairs: dict[str, dict[str, torch.Tensor]] = {}
        self.active = ""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both paths, added."""
        pair = self.pairs[self.active]
        return self.linear(x) + self.scale * ((x @ pair["A"].T) @ pair["B"].T)


class Oracle:
    """Embeds one item at a time from the files of an official-layout checkpoint directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        settings = _json(self.directory / "config.json")
        self.matryoshka_dims: list[int] = settings["matryoshka_dims"]
        self.pixels = _json(self.directory / "preprocessor_config.json")
        self.tokenizer = Tokenizer.from_file(str(self.directory / "tokenizer.json"))
        self.model, self.projector = _model_and_projector(self.directory, settings)
        self.loras = _put_loras_beside(self.directory, self.model, self.projector)
        self.projector_lora = self.loras["multi_vector_projector"]

    @torch.inference_mode()
    def embed(
        self,
        item: Item,
        task: str,
        dim: int | None = None,
        max_length: int | None = None,
        max_pixels: int | None = None,
    ) -> OracleEmbedding:
        """Single vector, multi-vector and token count of one text or image."""
        adapter, prefix = ADAPTER_AND_PREFIX[task]
        for lora in self.loras.values():
            lora.active = adapter
        if isinstance(item, str):
            ids, truncated = self.text_ids(prefix + item, max_length)
            hidden_TD = self._text_hidden(ids)
            first, last = 0, len(ids) - 1
        else:
            pixel_values, grid = self.pixel_values(item, max_pixels)
            ids, truncated = self.image_ids(grid), False
            hidden_TD = self._image_hidden(ids, pixel_values, grid)
            first = ids.index(self.tokenizer.token_to_id("<|vision_start|>"))
            last = ids.index(self.tokenizer.token_to_id("<|vision_end|>"))
        single_D = _unit(hidden_TD[first : last + 1].mean(dim=0))
        if dim is not None:
            assert dim in self.matryoshka_dims
            single_D = _unit(single_D[:dim])
        multi_TM = _unit(self.projector_lora(hidden_TD))
        return OracleEmbedding(
            single=single_D.numpy(),
            multi=multi_TM.numpy(),
            n_tokens=len(ids),
            truncated=truncated,
        )

    def text_ids(self, prompt: str, max_length: int | None = None) -> tuple[list[int], bool]:
        """Token ids of a text with its prefix, and whether the limit cut some off."""
        # A user's "<|image_pad|>" is eleven characters of text, never the token.
        self.tokenizer.encode_special_tokens = True
        ids = self.tokenizer.encode(prompt).ids
        limit = min(LONGEST, max_length or LONGEST)
        return ids[:limit], len(ids) > limit

    def image_ids(self, grid: tuple[int, int, int]) -> list[int]:
        """Token ids of the image prompt: one pad for each merged patch."""
        merged = math.prod(grid) // self.pixels["merge_size"] ** 2
        self.tokenizer.encode_special_tokens = False
        return self.tokenizer.encode(IMAGE_PROMPT.format(pads=IMAGE_PAD * merged)).ids

    def pixel_values(
        self, item: bytes | Image.Image, max_pixels: int | None = None
    ) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """Normalised patches [P, 3 * 2 * 14 * 14] and the grid (1, rows, columns) of patches."""
        image = Image.open(io.BytesIO(item)) if isinstance(item, bytes) else item
        # Alpha is dropped and EXIF orientation ignored, as the reference does.
        pixels_HWC = np.array(image.convert("RGB"), dtype=np.uint8)
        patch, merge = self.pixels["patch_size"], self.pixels["merge_size"]
        height, width = smart_resize(
            pixels_HWC.shape[0],
            pixels_HWC.shape[1],
            factor=patch * merge,
            min_pixels=self.pixels["min_pixels"],
            max_pixels=max_pixels or self.pixels["max_pixels"],
        )
        pixels_CHW = torch.from_numpy(pixels_HWC.transpose(2, 0, 1).copy())
        resized_CHW = nn.functional.interpolate(
            pixels_CHW[None], (height, width), mode="bicubic", antialias=True, align_corners=False
        )[0]
        mean = torch.tensor(self.pixels["image_mean"])[:, None, None]
        std = torch.tensor(self.pixels["image_std"])[:, None, None]
        values_CHW = (resized_CHW.float() / 255 - mean) / std
        rows, columns = height // patch, width // patch
        blocks = values_CHW.reshape(
            3, rows // merge, merge, patch, columns // merge, merge, patch
        ).permute(1, 4, 2, 5, 0, 3, 6)  # block row, block column, row in, column in, C, y, x
        frames = self.pixels["temporal_patch_size"]
        twice = torch.stack([blocks] * frames, dim=5)  # the still image is every frame of the clip
        return twice.reshape(rows * columns, -1), (1, rows, columns)

    def _text_hidden(self, ids: list[int]) -> torch.Tensor:
        # get_rope_index refuses a pure text; there all three axes count the tokens.
        positions_31T = torch.arange(len(ids)).expand(3, 1, -1)
        output = self.model(
            input_ids=torch.tensor([ids]), position_ids=positions_31T, use_cache=False
        )
        return output.last_hidden_state[0]

    def _image_hidden(
        self, ids: list[int], pixel_values: torch.Tensor, grid: tuple[int, int, int]
    ) -> torch.Tensor:
        ids_1T = torch.tensor([ids])
        kinds_1T = (ids_1T == self.tokenizer.token_to_id(IMAGE_PAD)).int()  # 0 text, 1 image
        grid_13 = torch.tensor([grid])
        positions_31T, _ = self.model.get_rope_index(ids_1T, kinds_1T, image_grid_thw=grid_13)
        output = self.model(
            input_ids=ids_1T,
            pixel_values=pixel_values,
            image_grid_thw=grid_13,
            position_ids=positions_31T,
            use_cache=False,
        )
        return output.last_hidden_state[0]


def smart_resize(
    height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The model's rule: sides multiples of `factor`, area within the bounds, aspect about kept."""
    assert max(height, width) <= 200 * min(height, width), "aspect ratio over 200"
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / shrink / factor))
        columns = max(1, math.floor(width / shrink / factor))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor)
        columns = math.ceil(width * grow / factor)
    return rows * factor, columns * factor


def read_weights(file_or_directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of one safetensors file, or of the shards in a directory, as fp32."""
    path = Path(file_or_directory)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return {name: t.float() for file in files for name, t in load_file(file).items()}


def stock_name(name: str) -> str:
    """A base tensor's name in the stock model, from the old spelling or the new."""
    name = name.removeprefix("model.")
    if name.startswith(("layers.", "embed_tokens.", "norm.")):
        return "language_model." + name
    return name


def _model_and_projector(
    directory: Path, settings: dict[str, Any]
) -> tuple[Qwen2_5_VLModel, nn.Linear]:
    weights = {stock_name(name): tensor for name, tensor in read_weights(directory).items()}
    weights.pop("lm_head.weight", None)  # tied, and no embedding passes through it
    weight = weights.pop("multi_vector_projector.weight")
    projector = nn.Linear(weight.shape[1], weight.shape[0])
    projector.load_state_dict(
        {"weight": weight, "bias": weights.pop("multi_vector_projector.bias")}
    )
    config = Qwen2_5_VLConfig(**_without_dtypes(settings))
    config._attn_implementation = "eager"
    model = Qwen2_5_VLModel(config).float()
    model.load_state_dict(weights, strict=True)
    return model.eval(), projector.eval()


def _put_loras_beside(
    directory: Path, model: nn.Module, projector: nn.Linear
) -> dict[str, LoraBeside]:
    settings = _json(directory / "adapters" / "adapter_config.json")
    scale = settings["lora_alpha"] / settings["r"]
    loras = {"multi_vector_projector": LoraBeside(projector, scale)}
    for name, module in list(model.language_model.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, leaf = name.rpartition(".")
            loras[f"language_model.{name}"] = LoraBeside(module, scale)
            setattr(
                model.language_model.get_submodule(parent), leaf, loras[f"language_model.{name}"]
            )
    for name, tensor in read_weights(directory / "adapters" / "adapter_model.safetensors").items():
        module_name, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
        half, adapter, _ = rest.split(".")
        loras[stock_name(module_name)].pairs.setdefault(adapter, {})[half] = tensor
    return loras


def _without_dtypes(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings; a dtype left in a nested one would build that part in bf16."""
    return {
        key: _without_dtypes(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in ("torch_dtype", "dtype", "auto_map", "architectures")
    }


def _unit(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(x, dim=-1)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
