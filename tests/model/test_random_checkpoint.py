"""The random checkpoint: official names and shapes, same seed same bytes, no idle tensor."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from pipeline.errors import CheckpointError, SpecError
from pipeline.model.random_checkpoint import (
    FULL,
    TASK_NAMES,
    TINY,
    adapter_shapes,
    tensor_shapes,
    tiny_geometry,
    write_random_checkpoint,
)
from pipeline.model.random_tokenizer import SPECIAL_TOKENS, special_ids, train_tokenizer
from pipeline.tasks import ADAPTERS

IDS = special_ids(TINY.vocabulary)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint") / "new" / "tiny"
    write_random_checkpoint(directory, TINY)
    return directory


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(checkpoint.glob("model-*.safetensors")):
        tensors |= load_file(shard)
    return tensors


@pytest.fixture(scope="module")
def adapters(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "adapters" / "adapter_model.safetensors")


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
    assert {name: tuple(t.shape) for name, t in base.items()} == tensor_shapes(TINY)
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
    assert {name: tuple(t.shape) for name, t in adapters.items()} == adapter_shapes(TINY)
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


def test_the_full_geometry_counts_what_the_real_checkpoint_has() -> None:
    base = tensor_shapes(FULL)
    assert len(base) == 1 + 32 * 12 + 5 + 1 + 36 * 12 + 1 + 2
    assert len(adapter_shapes(FULL)) == 1518
    assert base["model.embed_tokens.weight"] == (151936, 2048)
    assert base["visual.merger.mlp.0.weight"] == (5120, 5120)
    assert base["model.layers.35.mlp.gate_proj.weight"] == (11008, 2048)
    # Qwen2.5-VL-3B has 3,754,622,976 parameters; the projector adds 2048 * 128 + 128.
    assert sum(map(math.prod, base.values())) == 3_754_622_976 + 262_272


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 8}, "geometry.hidden: 64 does not fit heads 8; .* a multiple of 16"),
        ({"vision_heads": 16}, "geometry.vision_hidden: 32 .* a multiple of 4"),
        ({"kv_heads": 3}, "geometry.heads: 4 does not fit kv_heads 3; .* a whole number"),
        ({"matryoshka_dims": (16, 128)}, r"geometry.matryoshka_dims: \(16, 128\) .* hidden, 64"),
        ({"matryoshka_dims": (16, 32)}, "geometry.matryoshka_dims"),
        ({"matryoshka_dims": ()}, "geometry.matryoshka_dims"),
        ({"matryoshka_dims": (32, 16, 64)}, "geometry.matryoshka_dims"),
        ({"full_attention_blocks": (4,)}, "geometry.full_attention_blocks: .* from 0 to 3"),
        ({"min_pixels": 700_000}, "geometry.min_pixels: 700000 .* at most max_pixels, 602112"),
        ({"layers": 0}, "geometry.layers: 0 is not a size; expected 1 or more"),
        ({"vocabulary": 100}, "geometry.vocabulary: 100 is too small; expected 0"),
    ],
)
def test_a_geometry_that_cannot_be_is_refused_in_one_sentence(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=f"^{message}"):
        dataclasses.replace(TINY, **change)


def test_the_matryoshka_lengths_follow_the_width_asked_for() -> None:
    assert tiny_geometry(128).matryoshka_dims == (32, 64, 128)
    with pytest.raises(SpecError, match=r"^geometry\.hidden: 100 "):
        tiny_geometry(100)


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
        "pipeline.model.random_checkpoint._write_tensors", lambda path, shapes, seed: None
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
    for name, shape in tensor_shapes(FULL).items():
        sizes[index["weight_map"][name]] += 2 * math.prod(shape)
    assert max(sizes.values()) <= 10**9


def test_the_traps_of_the_official_config_are_there(checkpoint: Path) -> None:
    config = read_json(checkpoint / "config.json")
    assert config["auto_map"].keys() == {"AutoConfig", "AutoModel"}
    assert config["text_config"]["torch_dtype"] == "bfloat16"
    assert config["vision_config"]["torch_dtype"] == "bfloat16"


# Tokenizer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Query: The quick brown fox, it's 42!\r\n\n  trailing  ",
        "caf\u00e9 \u65e5\u672c\u8a9e \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \U0001f9ea\u200d",
        "def f(x):\n\treturn x  # \u03bb\x00",
    ],
)
def test_the_tokenizer_gives_every_text_back(checkpoint: Path, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert max(ids, default=0) < IDS["<|endoftext|>"]


def test_the_tokenizer_has_learnt_merges_and_normalises_to_nfc(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    assert len(tokenizer.encode("the function returns an object").ids) <= 8
    assert tokenizer.decode(tokenizer.encode("e\u0301").ids) == "\u00e9"


def test_the_tokenizer_splits_as_qwen2_does(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    pieces = tokenizer.pre_tokenizer.pre_tokenize_str("IT'SO pay 42$!\r\n\n  if\t so ")
    assert [text for text, _ in pieces] == [
        *("IT", "'S", "O", "\u0120pay", "\u0120", "4", "2", "$!\u010d\u010a\u010a"),
        *("\u0120", "\u0120if", "\u0109", "\u0120so", "\u0120"),
    ]


def test_special_tokens_have_the_ids_that_the_config_names(checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    config = read_json(checkpoint / "config.json")
    assert tokenizer.encode("".join(SPECIAL_TOKENS)).ids == list(IDS.values())
    assert tokenizer.get_vocab_size() == config["vocab_size"] == 2270
    assert tokenizer.token_to_id("<|vision_start|>") == config["vision_start_token_id"]
    assert tokenizer.token_to_id("<|vision_end|>") == config["vision_end_token_id"]
    assert tokenizer.token_to_id("<|vision_pad|>") == config["vision_token_id"]
    assert tokenizer.token_to_id("<|image_pad|>") == config["image_token_id"]
    assert tokenizer.token_to_id("<|endoftext|>") == config["bos_token_id"]
    assert tokenizer.token_to_id("<|im_end|>") == config["eos_token_id"]


def test_fillers_move_the_special_tokens_and_nothing_else() -> None:
    tiny, full = train_tokenizer(0), train_tokenizer(151936)
    text = "def f(x): return filler_3000 \u65e5\u672c"
    assert full.encode(text).ids == tiny.encode(text).ids
    assert full.token_to_id("<|endoftext|>") == 151643
    assert full.token_to_id("<|video_pad|>") == 151656


def test_the_stock_tokenizer_class_agrees(checkpoint: Path) -> None:
    stock = Qwen2Tokenizer.from_pretrained(checkpoint)
    ours = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    text = "<|im_start|>user\nDescribe the image.<|im_end|>"
    assert stock(text)["input_ids"] == ours.encode(text).ids
    assert stock.pad_token_id == IDS["<|endoftext|>"]


# The stock model --------------------------------------------------------------------------------


class Stock:
    """The stock model in fp32 with one image and some text, and the projector on top."""

    def __init__(self, directory: Path) -> None:
        # Explicit fp32 everywhere: dtype= alone leaves the sub-models bf16 (the torch_dtype trap).
        self.model, self.report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True
        )
        self.model = self.model.float().eval()
        grid_h, grid_w = 12, 8  # more than one window of 8 x 8 patches
        random = torch.Generator().manual_seed(0)
        ids = [IDS["<|vision_start|>"], *[IDS["<|image_pad|>"]] * (grid_h * grid_w // 4)]
        ids += [IDS["<|vision_end|>"], *range(300, 312)]
        self.inputs = {
            "input_ids": torch.tensor([ids]),
            "mm_token_type_ids": torch.tensor([[int(i == IDS["<|image_pad|>"]) for i in ids]]),
            "pixel_values": torch.randn(grid_h * grid_w, 3 * 2 * 14 * 14, generator=random),
            "image_grid_thw": torch.tensor([[1, grid_h, grid_w]]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        }

    @torch.inference_mode()
    def hidden(self) -> torch.Tensor:
        """[T, hidden]."""
        self.model.model.rope_deltas = None
        output = self.model.model(**self.inputs, use_cache=False)
        return output.last_hidden_state[0].clone()

    def parameter(self, name: str) -> torch.Tensor:
        """By its name in either file, without base_model.model."""
        name = name.replace("visual.", "model.visual.", 1) if name.startswith("visual.") else name
        if name.startswith("model.") and not name.startswith(("model.visual.", "model.language")):
            name = name.replace("model.", "model.language_model.", 1)
        return self.model.get_parameter(name).data


@pytest.fixture(scope="module")
def stock(checkpoint: Path) -> Stock:
    return Stock(checkpoint)


def test_the_stock_class_loads_it_with_nothing_missing_but_the_tied_head(stock: Stock) -> None:
    assert set(stock.report["missing_keys"]) <= {"lm_head.weight"}
    assert set(stock.report["unexpected_keys"]) == {
        "multi_vector_projector.weight",
        "multi_vector_projector.bias",
    }
    assert not stock.report["mismatched_keys"]


def test_activations_stay_sane_and_tokens_differ(stock: Stock) -> None:
    hidden_TD = stock.hidden()
    assert 0.5 < hidden_TD.pow(2).mean().sqrt() < 2
    cosines = torch.corrcoef(hidden_TD)
    assert cosines.fill_diagonal_(0).abs().max() < 0.99


def test_zeroing_any_single_base_tensor_changes_the_hidden_states(
    stock: Stock, base: dict[str, torch.Tensor]
) -> None:
    before = stock.hidden()
    without_effect = []
    for name in base:
        if name.startswith("multi_vector_projector."):
            continue
        tensor = stock.parameter(name)
        kept = tensor.clone()
        tensor.zero_()
        if (stock.hidden() - before).abs().max() < 1e-3:
            without_effect.append(name)
        tensor.copy_(kept)
    assert without_effect == []
    assert torch.equal(stock.hidden(), before)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_adapter_tensor_of_the_decoder_changes_the_hidden_states(
    stock: Stock, adapters: dict[str, torch.Tensor], task: str
) -> None:
    before = stock.hidden()
    other = TASK_NAMES[TASK_NAMES.index(task) - 1]
    for name_A in adapters:
        if f"lora_A.{task}." not in name_A or "multi_vector_projector" in name_A:
            continue
        a, b = adapters[name_A].float(), adapters[name_A.replace("lora_A", "lora_B")].float()
        other_a = adapters[name_A.replace(task, other)].float()
        weight = stock.parameter(
            name_A.removeprefix("base_model.model.").replace(f".lora_A.{task}", "")
        )
        kept = weight.clone()
        weight += b @ a
        after = stock.hidden()
        assert (after - before).abs().max() > 1e-2, name_A
        weight.copy_(kept + b @ other_a)
        assert (stock.hidden() - after).abs().max() > 1e-2, name_A
        weight.copy_(kept)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_projector_its_bias_and_its_adapter_all_count(
    base: dict[str, torch.Tensor], adapters: dict[str, torch.Tensor], task: str
) -> None:
    name = "base_model.model.multi_vector_projector.lora_{}.{}.weight"
    a, b = (adapters[name.format(letter, task)].float() for letter in "AB")
    weight = base["multi_vector_projector.weight"].float()
    assert 0.3 < (b @ a).norm() / weight.norm() < 0.7
    assert (base["multi_vector_projector.bias"] != 0).all()
