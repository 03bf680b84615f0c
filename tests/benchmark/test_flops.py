"""The operations counted are those torch counts, and those the design's arithmetic gives."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.benchmark.flops import FlopCounter
from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.model.engine import Engine
from pipeline.model.geometry import FULL
from pipeline.model.new_settings import model_config, preprocessor_config
from pipeline.model.processor import PreparedItem, Processor
from pipeline.model.vision import PatchGeometry

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint)


def text(tokens: int) -> PreparedItem:
    return PreparedItem(token_ids=np.arange(tokens, dtype=np.int32), pixels=None, truncated=False)


def page(checkpoint: Checkpoint) -> PreparedItem:
    """14 x 10 patches: windows of 64, 16, 48 and 12 patches."""
    return Processor(checkpoint).resized(np.zeros((196, 140, 3), np.uint8))


def attention(checkpoint: Checkpoint, lengths: list[int]) -> float:
    """By hand, of those texts and of one such page: query times key, and weights times value."""
    decoder, vision = checkpoint.text_config, checkpoint.config["vision_config"]
    causal = sum(length * length / 2 for length in lengths)
    pairs = 2 * (64**2 + 16**2 + 48**2 + 12**2) + 2 * 140**2
    decoding = 4 * causal * decoder["hidden_size"] * decoder["num_hidden_layers"]
    return decoding + 4 * pairs * vision["hidden_size"]


@pytest.mark.parametrize("multi", [False, True])
def test_the_matrix_products_are_those_torch_counts(checkpoint: Checkpoint, multi: bool) -> None:
    engine = Engine(checkpoint, "code", token_budget=10_000)
    items = [text(40), page(checkpoint), text(100)]
    with FlopCounterMode(display=False) as torch_counts:
        engine.embed(items, multi=multi)
    # attention is an operator of ours, which torch does not count
    products = sum(torch_counts.get_flop_counts()["Global"].values())
    counted = FlopCounter(checkpoint, engine.backbone.patches).of(items, multi=multi)
    lengths = [len(item.token_ids) for item in items]
    assert counted - attention(checkpoint, lengths) == products


def test_the_published_geometry_costs_what_the_design_says() -> None:
    config = model_config(FULL)
    full = SimpleNamespace(
        text_config=config.get("text_config") or config,
        config=config,
        preprocessor=preprocessor_config(FULL),
        multi_vector_dim=128,
    )
    counter = FlopCounter(full, PatchGeometry(full, CPU))
    assert counter.of([text(512)], multi=False) / 512 == pytest.approx(5.62e9, rel=1e-3)
    assert counter.of([text(32768)], multi=False) / 32768 == pytest.approx(10.38e9, rel=1e-3)
    # 54 x 54 patches, 729 merged, and a prompt of 12
    seen = PreparedItem(
        token_ids=np.zeros(741, np.int32), pixels=np.zeros((756, 756, 3), np.uint8), truncated=False
    )
    # the design counts both frames of the first layer, 0.1 %, and calls the prompt 12 tokens long
    assert counter.of([seen], multi=False) == pytest.approx(3.94e12 + 4.19e12, rel=5e-3)
