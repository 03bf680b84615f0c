"""Merging is peft's own merge to rounding, and switching back and forth leaves no trace.

Our adapters are never put through peft: its loader takes none of the official keys on its own and
only warns. Here the file's tensors are put into peft's modules key by key, with nothing left over.
"""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Qwen2_5_VLModel

from pipeline.model.adapters import WeightReader, adapted_modules
from pipeline.model.attention import kernel_named
from pipeline.model.backbone import Backbone
from pipeline.model.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Checkpoint, open_checkpoint
from pipeline.model.layout import PROJECTOR
from pipeline.tasks import ADAPTERS
from tests.model.oracle import Oracle, read_weights
from tests.model.parity_checkpoints import GEOMETRIES, ODD, write_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=GEOMETRIES)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("merge"), request.param))


# Against peft -----------------------------------------------------------------------------------


class Official(nn.Module):
    """The stock model and the projector under the names that the adapter file uses."""

    def __init__(self, model: Qwen2_5_VLModel, projector: nn.Linear) -> None:
        super().__init__()
        self.model = model
        self.multi_vector_projector = projector


def merged_by_peft(directory: Path, adapter: str) -> dict[str, torch.Tensor]:
    """Every parameter of the base model, by its official new name, after peft merged an adapter."""
    written = json.loads((directory / ADAPTER_CONFIG).read_text())
    lora = LoraConfig(
        r=written["r"],
        lora_alpha=written["lora_alpha"],
        target_modules=written["target_modules"],
        exclude_modules=written["exclude_modules"],
    )
    model, projector = plain_modules(directory)
    wrapped = get_peft_model(Official(model, projector), lora, adapter_name=adapter)
    assert isinstance(wrapped, PeftModel)
    own = {name: t for name, t in wrapped.state_dict().items() if ".lora_" in name}
    stored = {
        name: tensor
        for name, tensor in read_weights(directory / ADAPTER_WEIGHTS).items()
        if f".{adapter}." in name
    }
    assert own.keys() == stored.keys()
    wrapped.load_state_dict(stored, strict=False)
    return wrapped.merge_and_unload().state_dict()


def plain_modules(directory: Path) -> tuple[Qwen2_5_VLModel, nn.Linear]:
    """The stock model and the projector with the base weights, as the oracle loads them."""
    oracle = Oracle(directory)
    for name, beside in oracle.loras.items():
        if name != PROJECTOR:
            oracle.model.set_submodule(name, beside.linear)
    return oracle.model, oracle.projector_lora.linear


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_merged_weights_are_those_of_peft(checkpoint: Checkpoint, adapter: str) -> None:
    expected = merged_by_peft(checkpoint.directory, adapter)
    modules = list(adapted_modules(checkpoint))
    with WeightReader(checkpoint, CPU) as reader:
        for module in modules:
            name = module if module == PROJECTOR else f"model.{module}"
            merged = reader.merged(module, adapter)
            assert merged.dtype == torch.float32
            torch.testing.assert_close(merged, expected.pop(f"{name}.weight"), rtol=0, atol=1e-6)
        # And what we leave alone, peft leaves alone.
        for name, tensor in expected.items():
            base = reader.base(name.removeprefix("model.")).float()
            torch.testing.assert_close(base, tensor, rtol=0, atol=0)


def test_the_scale_is_alpha_over_rank(tmp_path: Path) -> None:
    opened = open_checkpoint(write_checkpoint(tmp_path, "odd"))
    assert opened.lora_scale == ODD.alpha / ODD.rank == 2.5


# Switching --------------------------------------------------------------------------------------


def backbone_of(checkpoint: Checkpoint, adapter: str, dtype: torch.dtype) -> Backbone:
    return Backbone(checkpoint, adapter, kernel_named("runs"), device=CPU, dtype=dtype)


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Every weight, copied."""
    return {name: tensor.clone() for name, tensor in backbone._network.state_dict().items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(scope="module")
def fresh(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of a backbone that was loaded with each adapter and never switched."""
    return {adapter: weights(backbone_of(checkpoint, adapter, dtype)) for adapter in ADAPTERS}


@pytest.fixture(scope="module")
def switched(checkpoint: Checkpoint, dtype: torch.dtype) -> Backbone:
    """One backbone that every example switches on from where the last one left it."""
    return backbone_of(checkpoint, ADAPTERS[0], dtype)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    # The fixtures are of the module, and their state is what the test is about.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(path=st.lists(st.sampled_from(ADAPTERS), min_size=1, max_size=6))
def test_after_any_switches_the_weights_are_bit_for_bit_those_of_the_last_adapter(
    switched: Backbone, fresh: dict[str, dict[str, torch.Tensor]], path: list[str]
) -> None:
    for adapter in path:
        switched.switch(adapter)
    assert switched.adapter == path[-1]
    assert differing(weights(switched), fresh[path[-1]]) == set()


def test_a_switch_changes_every_adapted_weight_and_no_other(
    checkpoint: Checkpoint, fresh: dict[str, dict[str, torch.Tensor]]
) -> None:
    adapted = {
        f"{module}.weight" if module == PROJECTOR else f"model.{module}.weight"
        for module in adapted_modules(checkpoint)
    }
    for one, other in zip(ADAPTERS, ADAPTERS[1:] + ADAPTERS[:1], strict=True):
        assert differing(fresh[one], fresh[other]) == adapted
