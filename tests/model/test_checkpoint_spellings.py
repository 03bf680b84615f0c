"""Both spellings of the base and of the adapter keys load to the same vectors; gaps are refused.

The official files mix the layouts: old keys in the base (`model.layers.*`, `visual.*`), new ones
in the adapters (`model.language_model.*`).
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import Embedder
from pipeline.errors import CheckpointError
from pipeline.model.geometry import TINY
from pipeline.model.random_checkpoint import write_random_checkpoint
from tests.model.parity_items import TEXTS, picture

ITEMS = [TEXTS["plain ASCII"], picture(84, 56)]
BASE_TENSORS = [
    "embed_tokens.weight",
    "layers.1.self_attn.k_proj.bias",
    "layers.0.mlp.down_proj.weight",
    "norm.weight",
    "visual.patch_embed.proj.weight",
    "visual.blocks.2.attn.qkv.bias",
    "visual.merger.ln_q.weight",
    "multi_vector_projector.bias",
]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("spellings") / "tiny"
    write_random_checkpoint(directory, TINY)
    return directory


@pytest.fixture
def edited(untouched: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint with its base in one file, for one test to rewrite."""
    directory = Path(shutil.copytree(untouched, tmp_path / "edited"))
    weights: dict[str, torch.Tensor] = {}
    for shard in directory.glob("model*.safetensors"):
        weights |= load_file(shard)
        shard.unlink()
    (directory / "model.safetensors.index.json").unlink(missing_ok=True)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    return directory


def old_base(name: str) -> str:
    return re.sub(r"^model\.visual\.", "visual.", name.replace("language_model.", ""))


def new_base(name: str) -> str:
    name = old_base(name)
    if name.startswith("visual."):
        return "model." + name
    return re.sub(r"^model\.", "model.language_model.", name)


def old_adapter(name: str) -> str:
    return name.replace(".language_model.", ".")


def new_adapter(name: str) -> str:
    return old_adapter(name).replace("model.model.layers.", "model.model.language_model.layers.")


def rename(file: Path, spelled: Callable[[str], str]) -> None:
    save_file({spelled(name): t for name, t in load_file(file).items()}, file, {"format": "pt"})


def load(directory: Path) -> Embedder:
    return Embedder.load(directory, task="code.query", device="cpu", dtype="float32")


@pytest.mark.parametrize("adapter", [old_adapter, new_adapter])
@pytest.mark.parametrize("base", [old_base, new_base])
def test_every_mix_of_spellings_loads_to_the_same_vectors(
    edited: Path, untouched: Path, base: Callable[[str], str], adapter: Callable[[str], str]
) -> None:
    rename(edited / "model.safetensors", base)
    rename(edited / "adapters" / "adapter_model.safetensors", adapter)
    # Each file really is in the spelling the test is about.
    names = load_file(edited / "model.safetensors")
    assert any("language_model." in n for n in names) == (base is new_base)
    got, right = load(edited).embed(ITEMS, multi=True), load(untouched).embed(ITEMS, multi=True)
    np.testing.assert_array_equal(got.single, right.single)
    for one, other in zip(got.multi, right.multi, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", BASE_TENSORS)
def test_a_dropped_base_tensor_is_refused_by_name(edited: Path, name: str) -> None:
    weights = load_file(edited / "model.safetensors")
    (full_name,) = [n for n in weights if n.removeprefix("model.") == name]
    del weights[full_name]
    save_file(weights, edited / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load(edited)


@pytest.mark.parametrize(
    "name",
    ["model.layers.2.input_layernorm.weight", "visual.blocks.0.extra.weight", "second_head.weight"],
)
def test_an_unexpected_base_tensor_is_refused_by_name(edited: Path, name: str) -> None:
    weights = load_file(edited / "model.safetensors")
    save_file(weights | {name: torch.zeros(64)}, edited / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=re.escape(name.removeprefix("model."))):
        load(edited)


def test_a_base_tensor_of_another_shape_is_refused_by_name(edited: Path) -> None:
    name = "layers.0.mlp.up_proj.weight"
    weights = load_file(edited / "model.safetensors")
    weights[f"model.{name}"] = weights[f"model.{name}"][:-1].contiguous()
    save_file(weights, edited / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load(edited)


def test_one_tensor_under_both_spellings_is_refused(edited: Path) -> None:
    # Which of the two would win is a matter of file order: no answer is better than either.
    weights = load_file(edited / "model.safetensors")
    name = "layers.0.mlp.up_proj.weight"
    double = {f"model.language_model.{name}": weights[f"model.{name}"] * 2}
    save_file(weights | double, edited / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load(edited)


def test_a_missing_shard_is_refused(untouched: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(untouched, tmp_path / "short"))
    index = json.loads((directory / "model.safetensors.index.json").read_text(encoding="utf-8"))
    shard = sorted(set(index["weight_map"].values()))[-1]
    (directory / shard).unlink()
    with pytest.raises(CheckpointError):
        load(directory)


@pytest.mark.fault("security.weights")
def test_pickled_weights_alone_are_refused_and_never_opened(edited: Path) -> None:
    # The file is no pickle at all: had it been opened, another error would come out.
    (edited / "model.safetensors").unlink()
    (edited / "pytorch_model.bin").write_bytes(b"not to be read")
    with pytest.raises(CheckpointError, match="safetensors"):
        load(edited)


@pytest.mark.fault("security.weights")
def test_pickled_adapters_alone_are_refused_and_never_opened(edited: Path) -> None:
    (edited / "adapters" / "adapter_model.safetensors").unlink()
    (edited / "adapters" / "adapter_model.bin").write_bytes(b"not to be read")
    with pytest.raises(CheckpointError, match="safetensors"):
        load(edited)
