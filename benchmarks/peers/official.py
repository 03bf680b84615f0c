"""The published model as the libraries hold it: stock Qwen2.5-VL, peft's LoRA beside each linear.

The weights come from the same official-layout files as ours. The current peft loads none of the
official adapter file and only warns, so tensors are assigned by name, and a missing, unexpected or
misshapen one is an error: a peer with other weights would be no peer.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging


class OfficialModel(Qwen2_5_VLForConditionalGeneration):
    """The stock model with the multi-vector projector beside it, as the reference has it."""

    def __init__(self, config: Qwen2_5_VLConfig) -> None:
        super().__init__(config)
        self.multi_vector_projector = nn.Linear(
            config.text_config.hidden_size, config.multi_vector_projector_dim
        )


def load_official(directory: Path, adapter: str, dtype: torch.dtype) -> PeftModel:
    """The model with all its adapters unmerged and one of them active.

    Args:
        directory: of an official-layout checkpoint.
        adapter: the active one.
        dtype: of all weights.

    Raises:
        ValueError: the files do not cover the model exactly.
    """
    settings = read_json(directory / "config.json")
    lora = read_json(directory / "adapters" / "adapter_config.json")
    first, *others = settings["task_names"]
    with _quiet_libraries():
        config = Qwen2_5_VLConfig(**without_dtypes(settings))
        config._attn_implementation = "sdpa"
        model = OfficialModel(config)
        _assign_base(model, directory)
        peft_model = get_peft_model(
            model, _lora_config(lora), adapter_name=first, autocast_adapter_dtype=False
        )
        for name in others:
            peft_model.add_adapter(name, _lora_config(lora))
    _assign_adapters(peft_model, directory)
    peft_model.set_adapter(adapter)
    peft_model.requires_grad_(False)
    return peft_model.to(dtype).eval()


def read_base(directory: Path) -> dict[str, torch.Tensor]:
    """Every base tensor as float32, by its name in the stock model."""
    files = sorted(directory.glob("*.safetensors"))
    return {
        _stock_name(name): tensor.float()
        for file in files
        for name, tensor in load_file(file).items()
    }


def read_adapters(directory: Path) -> dict[str, torch.Tensor]:
    """Every adapter tensor as float32; the file spells them as peft names its modules."""
    found = load_file(directory / "adapters" / "adapter_model.safetensors")
    return {name: tensor.float() for name, tensor in found.items()}


def read_json(file: Path) -> dict[str, Any]:
    """A parsed JSON file."""
    parsed: dict[str, Any] = json.loads(file.read_text())
    return parsed


def without_dtypes(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that would build a part in bf16, or look for remote code."""
    return {
        key: without_dtypes(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in ("torch_dtype", "dtype", "auto_map", "architectures")
    }


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Without what the libraries tell each other about the official settings and each other."""
    level = logging.get_verbosity()
    # the official config.json spells RoPE as transformers 4 did: understood, and remarked upon
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by an old name
        warnings.filterwarnings("ignore", r"`is_gradient_checkpointing` is", FutureWarning)
        try:
            yield
        finally:
            logging.set_verbosity(level)


def _stock_name(name: str) -> str:
    if name.startswith("visual."):
        return f"model.{name}"
    if name.startswith("model."):
        return "model.language_model." + name.removeprefix("model.")
    return name


def _lora_config(settings: dict[str, Any]) -> LoraConfig:
    return LoraConfig(
        r=settings["r"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        target_modules=settings["target_modules"],
        exclude_modules=settings["exclude_modules"],
    )


def _assign_base(model: OfficialModel, directory: Path) -> None:
    missing, unexpected = model.load_state_dict(read_base(directory), strict=False)
    # the output head is the embedding table, of which the files hold one copy
    if missing != ["lm_head.weight"] or unexpected:
        raise ValueError(f"base weights: missing {missing}, unexpected {unexpected}")
    if model.lm_head.weight is not model.model.language_model.embed_tokens.weight:
        model.tie_weights()


def _assign_adapters(model: PeftModel, directory: Path) -> None:
    found = read_adapters(directory)
    expected = {name for name in model.state_dict() if ".lora_" in name}
    if found.keys() != expected:
        odd = sorted(found.keys() ^ expected)
        raise ValueError(f"adapters: {len(odd)} names on one side only, the first is {odd[0]}")
    model.load_state_dict(found, strict=False)
