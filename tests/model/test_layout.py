"""The table of tensors is the stock model's own, and a key of either spelling finds its tensor.

A wrong entry in the table would make the random checkpoint and its loader agree on the wrong thing,
so the table is held against the library's `state_dict` and against keys of the official files,
written out by hand.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

from pipeline.model.geometry import FULL, TINY, Geometry
from pipeline.model.layout import (
    AdapterTensor,
    adapter_shapes,
    base_shapes,
    canonical_base_key,
    official_adapter_key,
    official_base_key,
    parse_adapter_key,
    targeted_modules,
)
from pipeline.model.new_settings import TASK_NAMES, adapter_config, model_config

SIZES = pytest.mark.parametrize("geometry", [TINY, FULL], ids=["tiny", "full"])
PROJECTIONS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)

# The table --------------------------------------------------------------------------------------


def as_read(geometry: Geometry) -> dict[str, Any]:
    """config.json as a reader of the file sees it."""
    return json.loads(json.dumps(model_config(geometry)))


def for_the_library(settings: Mapping[str, Any]) -> dict[str, Any]:
    foreign = ("torch_dtype", "auto_map", "architectures", "rope_scaling", "rope_theta")
    return {
        key: for_the_library(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in foreign
    }


@SIZES
def test_the_base_is_the_stock_model_and_the_projector(geometry: Geometry) -> None:
    config = as_read(geometry)
    with torch.device("meta"):
        stock = Qwen2_5_VLModel(Qwen2_5_VLConfig(**for_the_library(config)))
    expected = {name: tuple(tensor.shape) for name, tensor in stock.state_dict().items()}
    expected["multi_vector_projector.weight"] = (128, geometry.hidden)
    expected["multi_vector_projector.bias"] = (128,)
    assert base_shapes(config) == expected


@SIZES
def test_a_config_without_the_nested_text_settings_gives_the_same_base(geometry: Geometry) -> None:
    config = as_read(geometry)
    flat = {key: value for key, value in config.items() if key != "text_config"}
    assert base_shapes(flat) == base_shapes(config)


@SIZES
def test_the_adapters_are_on_the_decoders_linears_and_the_projector(geometry: Geometry) -> None:
    base = base_shapes(as_read(geometry))
    layers = [f"language_model.layers.{i}" for i in range(geometry.layers)]
    expected = [f"{layer}.{linear}" for layer in layers for linear in PROJECTIONS]
    expected.append("multi_vector_projector")
    assert list(targeted_modules(adapter_config(geometry), base)) == expected
    ends = {"target_modules": [linear.split(".")[1] for linear in PROJECTIONS]}
    assert list(targeted_modules(ends, base)) == expected[:-1]


def test_the_full_geometry_counts_what_the_real_checkpoint_has() -> None:
    base = base_shapes(model_config(FULL))
    modules = targeted_modules(adapter_config(FULL), base)
    adapters = adapter_shapes(base, modules, TASK_NAMES, FULL.rank)
    assert len(adapters) == len({official_adapter_key(tensor) for tensor in adapters}) == 1518
    assert len(base) == 1 + 32 * 12 + 5 + 1 + 36 * 12 + 1 + 2
    # Qwen2.5-VL-3B has 3,754,622,976 parameters; the projector adds 2048 * 128 + 128.
    assert sum(map(math.prod, base.values())) == 3_754_622_976 + 262_272
    down = "language_model.layers.35.mlp.down_proj"
    assert adapters[AdapterTensor(task="code", module=down, side="A")] == (32, 11008)
    assert adapters[AdapterTensor(task="code", module=down, side="B")] == (2048, 32)


# Spellings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "canonical"),
    [
        (
            "model.embed_tokens.weight",
            "model.language_model.embed_tokens.weight",
            "language_model.embed_tokens.weight",
        ),
        (
            "model.layers.35.self_attn.q_proj.bias",
            "model.language_model.layers.35.self_attn.q_proj.bias",
            "language_model.layers.35.self_attn.q_proj.bias",
        ),
        ("model.norm.weight", "model.language_model.norm.weight", "language_model.norm.weight"),
        (
            "visual.blocks.7.attn.qkv.weight",
            "model.visual.blocks.7.attn.qkv.weight",
            "visual.blocks.7.attn.qkv.weight",
        ),
        (
            "visual.merger.mlp.2.bias",
            "model.visual.merger.mlp.2.bias",
            "visual.merger.mlp.2.bias",
        ),
        (
            "multi_vector_projector.bias",
            "multi_vector_projector.bias",
            "multi_vector_projector.bias",
        ),
    ],
)
def test_a_base_key_is_read_in_both_spellings_and_written_in_the_old(
    old: str, new: str, canonical: str
) -> None:
    assert canonical_base_key(old) == canonical_base_key(new) == canonical
    assert official_base_key(canonical) == old


@pytest.mark.parametrize(
    ("old", "new", "module"),
    [
        (
            "base_model.model.model.layers.0.mlp.down_proj.lora_B.text-matching.weight",
            "base_model.model.model.language_model.layers.0.mlp.down_proj"
            ".lora_B.text-matching.weight",
            "language_model.layers.0.mlp.down_proj",
        ),
        (
            "base_model.model.multi_vector_projector.lora_B.text-matching.weight",
            "base_model.model.multi_vector_projector.lora_B.text-matching.weight",
            "multi_vector_projector",
        ),
    ],
)
def test_an_adapter_key_is_read_in_both_spellings_and_written_in_the_new(
    old: str, new: str, module: str
) -> None:
    tensor = AdapterTensor(task="text-matching", module=module, side="B")
    assert parse_adapter_key(old) == parse_adapter_key(new) == tensor
    assert official_adapter_key(tensor) == new


def test_the_output_head_is_passed_over() -> None:
    assert canonical_base_key("lm_head.weight") is None


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",  # of no task: peft's own file
        "base_model.model.model.layers.0.mlp.up_proj.lora_C.code.weight",
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.code.bias",
        "base_model.model.model.layers.0.mlp.up_proj.base_layer.weight",
        "model.layers.0.mlp.up_proj.lora_A.code.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A.code.weight",
        "lora_A.code.weight",
    ],
)
def test_a_key_that_names_no_official_adapter_tensor_is_not_understood(key: str) -> None:
    assert parse_adapter_key(key) is None
