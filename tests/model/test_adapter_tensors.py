"""Every tensor of the adapter file counts: an edit to it shows in the vectors, or is refused.

A loader that quietly skips a tensor gives the base model and no error; each test edits one tensor
of a checkpoint by hand and demands either the oracle's answer for the edited files or a
CheckpointError that names the key.
"""

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
from tests.model.oracle import Oracle
from tests.model.parity_items import TEXTS, picture

ADAPTER_FILE = Path("adapters", "adapter_model.safetensors")
DECODER = "base_model.model.model.language_model.layers.1.self_attn.k_proj"
PROJECTOR = "base_model.model.multi_vector_projector"
PLACES = pytest.mark.parametrize("place", [DECODER, PROJECTOR])
HALVES = pytest.mark.parametrize("half", ["lora_A", "lora_B"])
ITEMS = [TEXTS["plain ASCII"], picture(84, 56), TEXTS["one letter"]]

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapters") / "tiny"
    write_random_checkpoint(directory, TINY)
    return directory


@pytest.fixture
def edited(untouched: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint for one test to spoil."""
    return Path(shutil.copytree(untouched, tmp_path / "edited"))


def edit(file: Path, change: Callable[[Weights], object]) -> None:
    """Rewrites a safetensors file after `change` has been at its tensors."""
    weights = load_file(file)
    change(weights)
    save_file({name: t.contiguous() for name, t in weights.items()}, file, {"format": "pt"})


def load(directory: Path, task: str = "retrieval.passage") -> Embedder:
    return Embedder.load(directory, task=task, device="cpu", dtype="float32")


def key(place: str, half: str, adapter: str = "retrieval") -> str:
    return f"{place}.{half}.{adapter}.weight"


def assert_equals_oracle_and_differs(edited: Path, untouched: Path, place: str) -> None:
    """The edited files give what the oracle says, and visibly not what the untouched ones gave."""
    task, oracle = "retrieval.passage", Oracle(edited)
    got, before = (
        load(edited, task).embed(ITEMS, multi=True),
        load(untouched).embed(ITEMS, multi=True),
    )
    for i, item in enumerate(ITEMS):
        expected = oracle.embed(item, task)
        np.testing.assert_allclose(got.single[i], expected.single, rtol=0, atol=1e-5)
        np.testing.assert_allclose(got.multi[i], expected.multi, rtol=0, atol=2e-5)
        assert np.abs(got.multi[i] - before.multi[i]).max() > 1e-3
        single_moved = np.abs(got.single[i] - before.single[i]).max()
        # The projector comes after pooling: only multi-vectors can show it.
        assert single_moved < 1e-6 if place == PROJECTOR else single_moved > 1e-4


@PLACES
@HALVES
def test_two_swapped_tasks_change_the_vectors_as_the_oracle_says(
    edited: Path, untouched: Path, place: str, half: str
) -> None:
    def swap(weights: Weights) -> None:
        one, other = key(place, half, "retrieval"), key(place, half, "code")
        weights[one], weights[other] = weights[other], weights[one]

    edit(edited / ADAPTER_FILE, swap)
    assert_equals_oracle_and_differs(edited, untouched, place)


@PLACES
@HALVES
def test_a_zeroed_tensor_changes_the_vectors_as_the_oracle_says(
    edited: Path, untouched: Path, place: str, half: str
) -> None:
    edit(edited / ADAPTER_FILE, lambda weights: weights[key(place, half)].zero_())
    assert_equals_oracle_and_differs(edited, untouched, place)


@PLACES
def test_an_edit_to_another_task_leaves_this_one_alone(
    edited: Path, untouched: Path, place: str
) -> None:
    edit(edited / ADAPTER_FILE, lambda weights: weights[key(place, "lora_B", "code")].zero_())
    got, before = load(edited).embed(ITEMS, multi=True), load(untouched).embed(ITEMS, multi=True)
    np.testing.assert_array_equal(got.single, before.single)
    for now, then in zip(got.multi, before.multi, strict=True):
        np.testing.assert_array_equal(now, then)


@PLACES
@HALVES
@pytest.mark.parametrize("adapter", ["retrieval", "code"])
def test_a_dropped_adapter_tensor_is_refused_by_name(
    edited: Path, place: str, half: str, adapter: str
) -> None:
    # Also when the task to be loaded does not need it: half a file is a broken file.
    edit(edited / ADAPTER_FILE, lambda weights: weights.pop(key(place, half, adapter)))
    with pytest.raises(CheckpointError) as refused:
        load(edited, "retrieval.query")
    assert_names(refused.value, key(place, half, adapter))


@PLACES
def test_an_extra_adapter_tensor_is_refused_by_name(edited: Path, place: str) -> None:
    extra = key(place.replace("k_proj", "z_proj").replace("_projector", "_prejector"), "lora_A")
    edit(edited / ADAPTER_FILE, lambda weights: weights.update({extra: torch.zeros(8, 64)}))
    with pytest.raises(CheckpointError) as refused:
        load(edited)
    assert_names(refused.value, extra)


def test_an_adapter_on_the_vision_tower_is_refused_by_name(edited: Path) -> None:
    extra = key("base_model.model.model.visual.blocks.0.attn.qkv", "lora_A")
    edit(edited / ADAPTER_FILE, lambda weights: weights.update({extra: torch.zeros(8, 32)}))
    with pytest.raises(CheckpointError) as refused:
        load(edited)
    assert_names(refused.value, extra)


@PLACES
@HALVES
@pytest.mark.parametrize("spoil", ["transposed", "one row short", "flattened"])
def test_an_adapter_tensor_of_another_shape_is_refused_by_name(
    edited: Path, place: str, half: str, spoil: str
) -> None:
    change = {"transposed": torch.t, "one row short": lambda t: t[:-1], "flattened": torch.ravel}
    name = key(place, half)
    edit(
        edited / ADAPTER_FILE, lambda weights: weights.update({name: change[spoil](weights[name])})
    )
    with pytest.raises(CheckpointError) as refused:
        load(edited)
    assert_names(refused.value, name)


def test_halves_that_agree_with_each_other_but_not_with_r_are_refused(edited: Path) -> None:
    # The product would still fit the linear; the scale alpha / r would be another one.
    def narrow(weights: Weights) -> None:
        weights[key(DECODER, "lora_A")] = weights[key(DECODER, "lora_A")][:4]
        weights[key(DECODER, "lora_B")] = weights[key(DECODER, "lora_B")][:, :4]

    edit(edited / ADAPTER_FILE, narrow)
    with pytest.raises(CheckpointError) as refused:
        load(edited)
    assert DECODER.split("language_model.")[1] in str(refused.value)


def assert_names(error: CheckpointError, name: str) -> None:
    """The message holds the key, in the file's spelling or without the wrapper's prefix."""
    assert name.removeprefix("base_model.model.").removeprefix("model.") in str(error), str(error)
