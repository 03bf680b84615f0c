"""Adapters: how peft is to put one beside the linears, so that its names are the official ones."""

from peft import LoraConfig

from pipeline.model.checkpoint import Settings
from pipeline.training.spec import AdapterSpec


def lora_config(settings: Settings, spec: AdapterSpec) -> LoraConfig:
    """Plain LoRA as the checkpoint's own adapters are: their rank, scale and modules.

    Args:
        settings: of the checkpoint.
        spec: what is wanted beside.
    """
    own = settings.adapter_config
    return LoraConfig(
        r=int(own["r"]),
        lora_alpha=own["lora_alpha"],
        lora_dropout=spec.dropout,
        target_modules=own["target_modules"],
        exclude_modules=own.get("exclude_modules"),
        bias="none",
    )
