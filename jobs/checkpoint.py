"""`nightjar checkpoint`: take out nano, make a random checkpoint, or verify any."""

import math
from pathlib import Path

from pipeline.model.attention import choose_kernel
from pipeline.model.backbone import Backbone
from pipeline.model.geometry import FULL, tiny_geometry
from pipeline.model.random_checkpoint import write_random_checkpoint
from pipeline.nano.shipped import megabytes, write_nano
from pipeline.stages.opened import open_model


def make_nano(directory: str) -> None:
    """The trained checkpoint that comes with this installation.

    Raises:
        CheckpointError: the directory is not empty.
    """
    write_nano(Path(directory))
    print(f"nano, a trained checkpoint of {megabytes():.0f} MB: {directory}; see its README.md")


def make_tiny(directory: str, seed: int, hidden: int) -> None:
    """A small checkpoint in the official layout.

    Raises:
        CheckpointError: the directory is not empty.
        SpecError: no geometry of that hidden size.
    """
    write_random_checkpoint(Path(directory), tiny_geometry(hidden), seed=seed)
    print(f"random checkpoint, hidden size {hidden}, seed {seed}: {directory}")


def make_full(directory: str, seed: int) -> None:
    """A checkpoint of the real geometry.

    Raises:
        CheckpointError: the directory is not empty.
    """
    write_random_checkpoint(Path(directory), FULL, seed=seed)
    print(f"random checkpoint of the real geometry, seed {seed}: {directory}")


def verify(path: str) -> None:
    """Load every weight strictly, merge every adapter, and say what was found.

    Raises:
        CheckpointError: something is missing, unexpected or of the wrong shape.
    """
    import torch

    checkpoint = open_model(path)
    dtype = torch.float32 if checkpoint.hidden_size < 1024 else torch.bfloat16
    first, *others = checkpoint.task_names
    cpu = torch.device("cpu")
    kernel = choose_kernel("auto", cpu, dtype)
    backbone = Backbone(checkpoint, first, kernel, device=cpu, dtype=dtype)
    for task in others:
        backbone.switch(task)
    text, vision = checkpoint.text_config, checkpoint.config["vision_config"]
    parameters = sum(math.prod(tensor.shape) for tensor in checkpoint.base.values())
    least, most = checkpoint.pixel_bounds
    print(f"checkpoint   {checkpoint.directory}")
    print(
        f"decoder      {text['num_hidden_layers']} layers, hidden {text['hidden_size']}, "
        f"{text['num_attention_heads']} heads, {text['num_key_value_heads']} key/value heads, "
        f"vocabulary {text['vocab_size']:,}"
    )
    print(
        f"vision       {vision['depth']} blocks, hidden {vision['hidden_size']}, images of "
        f"{least:,} to {most:,} pixels"
    )
    print(
        f"vectors      single {checkpoint.hidden_size}, cut to "
        f"{', '.join(map(str, checkpoint.matryoshka_dims))}; multi {checkpoint.multi_vector_dim}"
    )
    print(f"adapters     {', '.join(checkpoint.task_names)} (scale {checkpoint.lora_scale:g})")
    print(
        f"tensors      {len(checkpoint.base)} of the base ({parameters:,} parameters), "
        f"{len(checkpoint.adapters)} of the adapters: all there, none unexpected"
    )
    print(f"licence      {_licence(checkpoint.directory)}")
    print(f"fingerprint  {checkpoint.fingerprint}")


def _licence(directory: Path) -> str:
    named = sorted(path.name for path in directory.glob("LICENSE*"))
    if named:
        return f"see {', '.join(named)} in the checkpoint"
    return "none in the checkpoint; the published weights are for non-commercial use"
