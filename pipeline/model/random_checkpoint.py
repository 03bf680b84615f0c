"""Random weights in the file layout of the official jina-embeddings-v4 checkpoint.

Tests, examples and throughput measurements need a model but not its knowledge, and the real weights
have a non-commercial licence: so we write our own. The files reproduce what a loader must cope
with: base weights under the old key names beside adapters under the new ones, an `auto_map` towards
code that is not there, and `torch_dtype` in places where transformers 5 obeys it unasked.

TINY is 1 MB and takes 0.2 s. FULL has the real geometry: 3.75 B parameters, 8 GB, about a minute.
Values are drawn per tensor from its name and the seed, in blocks that go straight to the file, so
memory does not grow with the geometry and the same seed gives the same bytes. All of it is visible
in the model's output: activations stay near 1, no bias is zero, and every adapter moves its
projection by half of the projection's own size (times alpha / rank).

Refuses a directory that is not empty.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import CheckpointError, SpecError
from pipeline.model.random_tokenizer import (
    SMALLEST_PADDED,
    special_ids,
    vocabulary_rows,
    write_tokenizer,
)

TASK_NAMES = ("retrieval", "text-matching", "code")
"""The adapters, in the order of the official config.json."""

PATCH, TEMPORAL_PATCH, MERGE, WINDOW = 14, 2, 2, 112
"""Pixels, frames, patches and pixels: the same in every checkpoint of this family."""

_BLOCK = 1 << 22  # values drawn at a time: 16 MB as fp32
_SHARD_BYTES = 10**9
_REMOTE = "modeling_jina_embeddings_v4.JinaEmbeddingsV4"

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The sizes of a checkpoint; the vision tower's output always has the decoder's width."""

    hidden: int
    """Width of the decoder, and of a single vector."""
    layers: int
    """Decoder layers."""
    heads: int
    """Query heads of the decoder."""
    kv_heads: int
    """Key and value heads of the decoder."""
    intermediate: int
    """Width of the decoder's MLP."""
    vision_hidden: int
    """Width of the vision tower."""
    vision_depth: int
    """Blocks of the vision tower."""
    vision_heads: int
    """Attention heads of the vision tower."""
    vision_intermediate: int
    """Width of the vision tower's MLP."""
    full_attention_blocks: tuple[int, ...]
    """The vision blocks that look at the whole image; the others look at windows of 112 px."""
    rank: int
    """Rank r of every adapter."""
    alpha: int
    """An adapter is scaled by alpha / rank."""
    min_pixels: int
    """Smaller images are enlarged to this area."""
    max_pixels: int
    """Larger images are reduced to this area."""
    matryoshka_dims: tuple[int, ...]
    """The lengths to which a single vector may be cut, ascending; the last is `hidden`."""
    vocabulary: int
    """Rows of the padded embedding table (151936 is the real one), or 0 for no padding."""
    multi_vector_dim: int = 128
    """Width of one token's vector in a multi-vector."""

    def __post_init__(self) -> None:
        """Check each field.

        Raises:
            SpecError: a field does not fit; one sentence names it.
        """
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1 and name != "vocabulary":
                raise SpecError(f"geometry.{name}: {value} is not a size; expected 1 or more")
        self._check_divides("hidden", self.hidden, "heads", self.heads, 16)
        self._check_divides(
            "vision_hidden", self.vision_hidden, "vision_heads", self.vision_heads, 4
        )
        self._check_divides("heads", self.heads, "kv_heads", self.kv_heads, 1)
        dims, blocks = self.matryoshka_dims, self.full_attention_blocks
        if not dims or list(dims) != sorted(set(dims)) or dims[0] < 1 or dims[-1] != self.hidden:
            raise SpecError(
                f"geometry.matryoshka_dims: {dims} does not fit; expected ascending positive "
                f"lengths of which the last is hidden, {self.hidden}"
            )
        if list(blocks) != sorted(set(blocks)) or not set(blocks) <= set(range(self.vision_depth)):
            raise SpecError(
                f"geometry.full_attention_blocks: {blocks} does not fit; expected ascending block "
                f"numbers from 0 to {self.vision_depth - 1}"
            )
        if self.min_pixels > self.max_pixels:
            raise SpecError(
                f"geometry.min_pixels: {self.min_pixels} is too large; expected at most "
                f"max_pixels, {self.max_pixels}"
            )
        if self.vocabulary and self.vocabulary < SMALLEST_PADDED:
            raise SpecError(
                f"geometry.vocabulary: {self.vocabulary} is too small; expected 0 (no padding) or "
                f"at least {SMALLEST_PADDED}"
            )

    @staticmethod
    def _check_divides(name: str, size: int, by: str, parts: int, step: int) -> None:
        if size % (parts * step):
            raise SpecError(
                f"geometry.{name}: {size} does not fit {by} {parts}; expected {name} / {by} to be "
                + (f"a multiple of {step}" if step > 1 else "a whole number")
            )

    @property
    def head_dim(self) -> int:
        """Width of one decoder head."""
        return self.hidden // self.heads


def tiny_geometry(hidden: int = 64) -> Geometry:
    """A geometry with every feature of the real one; `hidden` is a multiple of 64."""
    return Geometry(
        hidden=hidden,
        layers=2,
        heads=4,
        kv_heads=2,
        intermediate=2 * hidden,
        vision_hidden=hidden // 2,
        vision_depth=4,
        vision_heads=2,
        vision_intermediate=3 * hidden // 4,
        full_attention_blocks=(1, 3),
        rank=8,
        alpha=8,
        min_pixels=3136,
        max_pixels=602112,
        matryoshka_dims=(hidden // 4, hidden // 2, hidden),
        vocabulary=0,
    )


TINY = tiny_geometry()
FULL = Geometry(
    hidden=2048,
    layers=36,
    heads=16,
    kv_heads=2,
    intermediate=11008,
    vision_hidden=1280,
    vision_depth=32,
    vision_heads=16,
    vision_intermediate=3420,
    full_attention_blocks=(7, 15, 23, 31),
    rank=32,
    alpha=32,
    min_pixels=3136,
    max_pixels=602112,
    matryoshka_dims=(128, 256, 512, 1024, 2048),
    vocabulary=151936,
)


def write_random_checkpoint(directory: Path, geometry: Geometry, *, seed: int = 0) -> None:
    """Write a whole checkpoint; config.json comes last, so that a broken-off one cannot be loaded.

    Raises:
        CheckpointError: `directory` exists and is not an empty directory.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(
            f"{directory}: is not an empty directory; name a new one for the random checkpoint"
        )
    (directory / "adapters").mkdir(parents=True)
    write_tokenizer(directory, geometry.vocabulary)
    _write_json(directory / "preprocessor_config.json", _preprocessor_config(geometry))
    _write_json(directory / "adapters/adapter_config.json", _adapter_config(geometry))
    _write_tensors(directory / "adapters/adapter_model.safetensors", adapter_shapes(geometry), seed)
    _write_base(directory, tensor_shapes(geometry), seed)
    _write_json(directory / "config.json", _config(geometry))


def tensor_shapes(geometry: Geometry) -> Shapes:
    """Name and shape of every base tensor, in the old spelling; there is no lm_head (tied)."""
    g, shapes = geometry, Shapes()
    width, mlp = g.vision_hidden, g.vision_intermediate
    shapes["visual.patch_embed.proj.weight"] = (width, 3, TEMPORAL_PATCH, PATCH, PATCH)
    for i in range(g.vision_depth):
        block = f"visual.blocks.{i}"
        shapes |= {f"{block}.norm1.weight": (width,), f"{block}.norm2.weight": (width,)}
        shapes |= _linear(f"{block}.attn.qkv", 3 * width, width)
        shapes |= _linear(f"{block}.attn.proj", width, width)
        shapes |= _linear(f"{block}.mlp.gate_proj", mlp, width)
        shapes |= _linear(f"{block}.mlp.up_proj", mlp, width)
        shapes |= _linear(f"{block}.mlp.down_proj", width, mlp)
    merged = width * MERGE**2
    shapes["visual.merger.ln_q.weight"] = (width,)
    shapes |= _linear("visual.merger.mlp.0", merged, merged)
    shapes |= _linear("visual.merger.mlp.2", g.hidden, merged)
    shapes["model.embed_tokens.weight"] = (vocabulary_rows(g.vocabulary), g.hidden)
    for i in range(g.layers):
        layer = f"model.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{norm}.weight"] = (g.hidden,)
        for module, (outputs, inputs) in _decoder_linears(g).items():
            bias = module[-6:] in ("q_proj", "k_proj", "v_proj")
            shapes |= _linear(f"{layer}.{module}", outputs, inputs, bias=bias)
    shapes["model.norm.weight"] = (g.hidden,)
    return shapes | _linear("multi_vector_projector", g.multi_vector_dim, g.hidden)


def adapter_shapes(geometry: Geometry) -> Shapes:
    """Name and shape of every adapter tensor, in the new spelling: A is [r, in], B is [out, r]."""
    targets = {
        f"model.language_model.layers.{i}.{module}": size
        for i in range(geometry.layers)
        for module, size in _decoder_linears(geometry).items()
    }
    targets["multi_vector_projector"] = (geometry.multi_vector_dim, geometry.hidden)
    shapes = Shapes()
    for target, (outputs, inputs) in targets.items():
        for task in TASK_NAMES:
            shapes[f"base_model.model.{target}.lora_A.{task}.weight"] = (geometry.rank, inputs)
            shapes[f"base_model.model.{target}.lora_B.{task}.weight"] = (outputs, geometry.rank)
    return shapes


def _decoder_linears(g: Geometry) -> dict[str, tuple[int, int]]:
    """[out, in] of the seven projections of a decoder layer."""
    keys = g.kv_heads * g.head_dim
    return {
        "self_attn.q_proj": (g.hidden, g.hidden),
        "self_attn.k_proj": (keys, g.hidden),
        "self_attn.v_proj": (keys, g.hidden),
        "self_attn.o_proj": (g.hidden, g.hidden),
        "mlp.gate_proj": (g.intermediate, g.hidden),
        "mlp.up_proj": (g.intermediate, g.hidden),
        "mlp.down_proj": (g.hidden, g.intermediate),
    }


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs)}
    return weight | ({f"{name}.bias": (outputs,)} if bias else {})


def _write_base(directory: Path, shapes: Shapes, seed: int) -> None:
    """Write the base in two shards at least, and the index that says what is where."""
    sizes = {name: 2 * math.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    limit = min(_SHARD_BYTES, total // 2)
    shards: list[Shapes] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and sum(sizes[n] for n in shards[-1]) + sizes[name] > limit:
            shards.append({})
        shards[-1][name] = shape
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_tensors(directory / file, shard, seed)
        where |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    _write_json(directory / "model.safetensors.index.json", index)


def _write_tensors(path: Path, shapes: Shapes, seed: int) -> None:
    """Write one safetensors file, tensor by tensor.

    By hand, because safetensors' own writer wants the whole file in memory. Format: length of the
    header (u64, little-endian), header (JSON, padded with spaces to 8 bytes), values.
    https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            for block in _draw(name, shape, seed):
                file.write(block)


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Iterator[bytes]:
    """The values of one tensor as bf16 bytes, block by block."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    random = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))
    mean, deviation = _distribution(name, shape)
    left = math.prod(shape)
    while left:
        count = min(left, _BLOCK)
        values = torch.from_numpy(random.standard_normal(count, dtype=np.float32))
        block = values.mul_(deviation).add_(mean).to(torch.bfloat16)
        yield block.view(torch.int16).numpy().tobytes()
        left -= count


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and deviation that keep activations near 1 and every tensor visible in the output."""
    if name.endswith(".bias"):
        return 0.0, 0.2
    if len(shape) == 1:  # a norm
        return 1.0, 0.1
    if name.endswith("embed_tokens.weight"):
        return 0.0, 1.0
    gain = 0.5 if ".lora_B." in name else 1.0
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))


def _config(g: Geometry) -> dict[str, Any]:
    """config.json: the text settings appear twice, flat and nested, as transformers 4.5x saved."""
    ids, text = special_ids(g.vocabulary), _text_config(g)
    return text | {
        "architectures": ["JinaEmbeddingsV4Model"],
        "auto_map": {
            "AutoConfig": "configuration_jina_embeddings_v4.JinaEmbeddingsV4Config",
            "AutoModel": f"{_REMOTE}Model",
        },
        "image_token_id": ids["<|image_pad|>"],
        "matryoshka_dims": g.matryoshka_dims,
        "model_type": "qwen2_5_vl",
        "multi_vector_projector_dim": g.multi_vector_dim,
        "single_vector_pool_strategy": "mean",
        "task_names": TASK_NAMES,
        "text_config": text | {"model_type": "qwen2_5_vl_text"},
        "transformers_version": "4.52.0",
        "truncate_dim": None,
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": _vision_config(g),
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_token_id": ids["<|vision_pad|>"],
    }


def _text_config(g: Geometry) -> dict[str, Any]:
    ids = special_ids(g.vocabulary)
    unit = g.head_dim // 16  # M-RoPE: time, height and width share half a head as 2 : 3 : 3
    return {
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": g.hidden,
        "initializer_range": 0.02,
        "intermediate_size": g.intermediate,
        "max_position_embeddings": 128000,
        "max_window_layers": 70,
        "num_attention_heads": g.heads,
        "num_hidden_layers": g.layers,
        "num_key_value_heads": g.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {
            "mrope_section": [2 * unit, 3 * unit, 3 * unit],
            "rope_type": "default",
            "type": "default",
        },
        "rope_theta": 1e6,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary_rows(g.vocabulary),
    }


def _vision_config(g: Geometry) -> dict[str, Any]:
    return {
        "depth": g.vision_depth,
        "fullatt_block_indexes": g.full_attention_blocks,
        "hidden_act": "silu",
        "hidden_size": g.vision_hidden,
        "in_channels": 3,
        "in_chans": 3,
        "intermediate_size": g.vision_intermediate,
        "model_type": "qwen2_5_vl",
        "num_heads": g.vision_heads,
        "out_hidden_size": g.hidden,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "spatial_patch_size": PATCH,
        "temporal_patch_size": TEMPORAL_PATCH,
        "tokens_per_second": 2,
        "torch_dtype": "bfloat16",
        "window_size": WINDOW,
    }


def _preprocessor_config(g: Geometry) -> dict[str, Any]:
    return {
        "auto_map": {"AutoProcessor": f"{_REMOTE}Processor"},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_pixels": g.max_pixels,
        "merge_size": MERGE,
        "min_pixels": g.min_pixels,
        "patch_size": PATCH,
        "processor_class": "JinaEmbeddingsV4Processor",
        "temporal_patch_size": TEMPORAL_PATCH,
    }


def _adapter_config(g: Geometry) -> dict[str, Any]:
    projections = "|".join(module.split(".")[1] for module in _decoder_linears(g))
    return {
        "base_model_name_or_path": None,
        "bias": "none",
        "exclude_modules": ".*visual.*",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": g.alpha,
        "lora_bias": False,
        "lora_dropout": 0.1,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": g.rank,
        "target_modules": f"(.*(model).*({projections}).*$|.*(multi_vector_projector).*$)",
        "task_type": "FEATURE_EXTRACTION",
        "use_dora": False,
        "use_rslora": False,
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
