"""The text decoder with one adapter merged, as a plain Qwen2 model directory.

For a pure text the three axes of Qwen2.5-VL's positions are equal, and its decoder is Qwen2. So any
tool that serves Qwen2 can embed with it at its best: no adapter beside the linears, no lm_head, no
code but its own. Merged in float32 and rounded once, as ours is.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model
from transformers.utils import logging

from benchmarks.peers.official import read_adapters, read_base, read_json

PROJECTOR = "projector/merged.safetensors"
"""The merged multi-vector projector, weight and bias, beside the model's own files."""

_DECODER = "model.language_model."


def write_merged(checkpoint: Path, adapter: str, dtype: torch.dtype) -> Path:
    """Write the model directory beside the checkpoint, once, and return it.

    Args:
        checkpoint: in the official layout.
        adapter: to be merged.
        dtype: of the weights.
    """
    name = str(dtype).removeprefix("torch.")
    directory = checkpoint.with_name(f"{checkpoint.name}-merged-{adapter}-{name}")
    if (directory / "tokenizer.json").is_file():
        return directory
    logging.disable_progress_bar()
    merged = _merged(checkpoint, adapter)
    decoder = {
        key.removeprefix(_DECODER): value
        for key, value in merged.items()
        if key.startswith(_DECODER)
    }
    model = Qwen2Model(_config(read_json(checkpoint / "config.json")))
    model.load_state_dict(decoder, strict=True)
    model.to(dtype).save_pretrained(directory)
    projector = {n: merged[f"multi_vector_projector.{n}"].to(dtype) for n in ("weight", "bias")}
    (directory / PROJECTOR).parent.mkdir(exist_ok=True)
    save_file(projector, directory / PROJECTOR)
    PreTrainedTokenizerFast(
        tokenizer_file=str(checkpoint / "tokenizer.json"),
        pad_token="<|endoftext|>",
        model_max_length=32768,
    ).save_pretrained(directory)
    return directory


def _merged(checkpoint: Path, adapter: str) -> dict[str, torch.Tensor]:
    settings = read_json(checkpoint / "adapters" / "adapter_config.json")
    scale = settings["lora_alpha"] / settings["r"]
    weights, adapters = read_base(checkpoint), read_adapters(checkpoint)
    ending = f".lora_A.{adapter}.weight"
    for name in [name for name in adapters if name.endswith(ending)]:
        a, b = adapters[name], adapters[name.replace(".lora_A.", ".lora_B.")]
        module = name.removeprefix("base_model.model.").removesuffix(ending)
        weights[f"{module}.weight"].addmm_(b, a, alpha=scale)
    return weights


def _config(settings: dict[str, object]) -> Qwen2Config:
    same = (
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "vocab_size",
    )
    return Qwen2Config(
        **{name: settings[name] for name in same},
        rope_parameters={"rope_type": "default", "rope_theta": settings["rope_theta"]},
        use_sliding_window=False,
    )
