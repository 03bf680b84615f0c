"""Fresh: a checkpoint that knows nothing yet, to be trained from the first stage on.

At first each layer adds nothing to what comes in (what it writes to the residual stream is zero, as
in Zhang et al., Fixup, arXiv 1901.09321), so the network begins as the mean of its tokens'
embeddings, which learns by far the fastest; adapters change nothing either.
"""

import math
from pathlib import Path

from tokenizers import Tokenizer

from pipeline.errors import SpecError
from pipeline.model.geometry import Geometry
from pipeline.model.layout import Shape
from pipeline.model.new_checkpoint import write_new_checkpoint
from pipeline.training.spec import FreshSpec, FreshVisionSpec

_WRITES = ("o_proj.weight", "down_proj.weight", "attn.proj.weight")
"""Endings of the matrices whose products are added to the residual stream."""


def write_fresh(directory: Path, spec: FreshSpec, tokenizer: Tokenizer, *, seed: int) -> None:
    """Write a fresh checkpoint.

    Args:
        directory: a new one.
        spec: its sizes.
        tokenizer: of as many entries as its vocabulary has.
        seed: of its values.

    Raises:
        CheckpointError: the directory is not empty.
        SpecError: the sizes do not fit together.
    """
    write_new_checkpoint(directory, geometry_of(spec), tokenizer, _distribution, seed=seed)


def geometry_of(spec: FreshSpec) -> Geometry:
    """The sizes of all parts.

    Raises:
        SpecError: they do not fit together.
    """
    vision = spec.vision
    try:
        return _geometry(spec, vision)
    except SpecError as error:
        # there its parts have other names
        told = (
            str(error).replace("geometry.vision_", "model.vision.").replace("geometry.", "model.")
        )
        raise SpecError(told) from None


def _geometry(spec: FreshSpec, vision: FreshVisionSpec) -> Geometry:
    return Geometry(
        hidden=spec.hidden,
        layers=spec.layers,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        intermediate=spec.intermediate,
        vision_hidden=vision.hidden,
        vision_depth=vision.depth,
        vision_heads=vision.heads,
        vision_intermediate=vision.intermediate,
        full_attention_blocks=tuple(vision.full_attention),
        rank=spec.rank,
        alpha=spec.rank,
        min_pixels=vision.min_pixels,
        max_pixels=vision.max_pixels,
        matryoshka_dims=tuple(spec.matryoshka_dims),
        vocabulary=spec.vocabulary,
        multi_vector_dim=spec.multi_vector_dim,
    )


def _distribution(name: str, shape: Shape) -> tuple[float, float]:
    if name.endswith(".bias") or ".lora_B." in name:
        return 0.0, 0.0
    if len(shape) == 1:  # a norm
        return 1.0, 0.0
    if name.endswith("embed_tokens.weight"):
        return 0.0, 0.3
    if name.endswith(_WRITES):
        return 0.0, 0.0
    return 0.0, 1 / math.sqrt(math.prod(shape[1:]))
