"""No idle tensor: the stock model loads the random weights, and each one shows in its output."""

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from pipeline.model.geometry import TINY
from pipeline.model.new_settings import TASK_NAMES
from pipeline.model.new_tokenizer import special_ids

IDS = special_ids(TINY.vocabulary)


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
