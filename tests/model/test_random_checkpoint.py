"""The random checkpoint: official names, shapes and settings, and same seed same bytes."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLConfig

from pipeline.errors import CheckpointError
from pipeline.model.geometry import FULL, TINY
from pipeline.model.layout import base_shapes, official_base_key
from pipeline.model.new_settings import TASK_NAMES
from pipeline.model.random_checkpoint import write_random_checkpoint
from pipeline.tasks import ADAPTERS


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# Files ------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_of_every_file(checkpoint: Path, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, TINY, seed=0)
    assert digests(tmp_path) == digests(checkpoint)


def test_another_seed_changes_the_weights_and_nothing_else(
    checkpoint: Path, tmp_path: Path
) -> None:
    write_random_checkpoint(tmp_path, TINY, seed=1)
    one, other = digests(checkpoint), digests(tmp_path)
    assert one.keys() == other.keys()
    changed = {name for name in one if one[name] != other[name]}
    assert changed == {name for name in one if name.endswith(".safetensors")}


def test_the_index_accounts_for_every_tensor_in_two_shards_or_more(
    checkpoint: Path, base: dict[str, torch.Tensor]
) -> None:
    index = read_json(checkpoint / "model.safetensors.index.json")
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) >= 2
    assert shards == sorted(path.name for path in checkpoint.glob("model-*.safetensors"))
    for shard in shards:
        listed = {name for name, file in index["weight_map"].items() if file == shard}
        assert load_file(checkpoint / shard).keys() == listed
    assert index["metadata"]["total_size"] == sum(2 * t.numel() for t in base.values())


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(CheckpointError, match="is not an empty directory"):
        write_random_checkpoint(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(CheckpointError, match="is not an empty directory"):
        write_random_checkpoint(tmp_path / "mine.txt", TINY)


# Names and shapes -------------------------------------------------------------------------------


def test_base_tensors_are_bf16_and_carry_the_old_names(base: dict[str, torch.Tensor]) -> None:
    assert {t.dtype for t in base.values()} == {torch.bfloat16}
    assert base["model.embed_tokens.weight"].shape[1] == 64
    assert base["model.norm.weight"].shape == (64,)
    assert base["model.layers.1.input_layernorm.weight"].shape == (64,)
    assert base["model.layers.1.post_attention_layernorm.weight"].shape == (64,)
    assert base["model.layers.1.self_attn.k_proj.weight"].shape == (32, 64)
    assert base["model.layers.1.self_attn.k_proj.bias"].shape == (32,)
    assert "model.layers.1.self_attn.o_proj.bias" not in base
    assert base["model.layers.1.mlp.down_proj.weight"].shape == (64, 128)
    assert base["visual.patch_embed.proj.weight"].shape == (32, 3, 2, 14, 14)
    assert base["visual.blocks.3.norm2.weight"].shape == (32,)
    assert base["visual.blocks.3.attn.qkv.bias"].shape == (96,)
    assert base["visual.blocks.3.mlp.gate_proj.bias"].shape == (48,)
    assert base["visual.merger.ln_q.weight"].shape == (32,)
    assert base["visual.merger.mlp.0.weight"].shape == (128, 128)
    assert base["visual.merger.mlp.2.bias"].shape == (64,)
    assert base["multi_vector_projector.weight"].shape == (128, 64)
    assert base["multi_vector_projector.bias"].shape == (128,)
    assert "lm_head.weight" not in base


def test_adapter_tensors_are_bf16_and_carry_the_new_names(
    adapters: dict[str, torch.Tensor],
) -> None:
    assert {t.dtype for t in adapters.values()} == {torch.bfloat16}
    layer = "base_model.model.model.language_model.layers.1"
    assert adapters[f"{layer}.self_attn.v_proj.lora_A.retrieval.weight"].shape == (8, 64)
    assert adapters[f"{layer}.self_attn.v_proj.lora_B.retrieval.weight"].shape == (32, 8)
    assert adapters[f"{layer}.mlp.up_proj.lora_B.text-matching.weight"].shape == (128, 8)
    projector = "base_model.model.multi_vector_projector"
    assert adapters[f"{projector}.lora_A.code.weight"].shape == (8, 64)
    assert adapters[f"{projector}.lora_B.code.weight"].shape == (128, 8)


def test_the_adapters_are_those_that_the_public_tasks_name() -> None:
    assert sorted(TASK_NAMES) == sorted(ADAPTERS)


# Settings ---------------------------------------------------------------------------------------


def test_config_read_with_the_explicit_class_gives_the_geometry(checkpoint: Path) -> None:
    config = Qwen2_5_VLConfig.from_pretrained(checkpoint)
    text, vision = config.text_config, config.vision_config
    assert (text.hidden_size, text.num_hidden_layers, text.intermediate_size) == (64, 2, 128)
    assert (text.num_attention_heads, text.num_key_value_heads) == (4, 2)
    assert (text.rms_norm_eps, text.max_position_embeddings) == (1e-6, 128000)
    assert text.rope_parameters["rope_theta"] == 1e6
    assert text.rope_parameters["mrope_section"] == [2, 3, 3]
    assert text.layer_types == ["full_attention"] * 2
    assert (vision.hidden_size, vision.depth, vision.num_heads) == (32, 4, 2)
    assert (vision.out_hidden_size, vision.intermediate_size) == (64, 48)
    assert (vision.window_size, list(vision.fullatt_block_indexes)) == (112, [1, 3])
    assert config.tie_word_embeddings
    assert (config.matryoshka_dims, config.truncate_dim) == ([16, 32, 64], None)
    assert config.task_names == ["retrieval", "text-matching", "code"]
    assert config.single_vector_pool_strategy == "mean"
    assert config.multi_vector_projector_dim == 128


def test_config_of_the_full_geometry_has_the_official_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipeline.model.new_checkpoint._write_tensors", lambda path, shapes, draw: None
    )
    write_random_checkpoint(tmp_path, FULL)
    config = read_json(tmp_path / "config.json")
    assert config["text_config"]["rope_scaling"]["mrope_section"] == [16, 24, 24]
    assert config["vocab_size"] == config["text_config"]["vocab_size"] == 151936
    assert config["vision_start_token_id"] == 151652
    assert config["vision_end_token_id"] == 151653
    assert config["vision_token_id"] == 151654
    assert config["image_token_id"] == 151655
    assert (config["bos_token_id"], config["eos_token_id"]) == (151643, 151645)
    assert read_json(tmp_path / "adapters" / "adapter_config.json")["lora_alpha"] == 32
    assert read_json(tmp_path / "preprocessor_config.json")["max_pixels"] == 602112
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.token_to_id("<|image_pad|>") == 151655
    index = read_json(tmp_path / "model.safetensors.index.json")
    sizes = dict.fromkeys(index["weight_map"].values(), 0)
    for name, shape in base_shapes(config).items():
        sizes[index["weight_map"][official_base_key(name)]] += 2 * math.prod(shape)
    assert max(sizes.values()) <= 10**9


def test_the_traps_of_the_official_config_are_there(checkpoint: Path) -> None:
    config = read_json(checkpoint / "config.json")
    assert config["auto_map"].keys() == {"AutoConfig", "AutoModel"}
    assert config["text_config"]["torch_dtype"] == "bfloat16"
    assert config["vision_config"]["torch_dtype"] == "bfloat16"
