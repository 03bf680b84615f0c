"""Compiled layers equal the library's own, whatever the pack, and are compiled once for all packs.

The graphs are captured as they would be for a GPU, whole and with a free number of tokens, but run
by torch's plain interpreter: generating code for a CPU takes half a minute and tests torch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.model.engine import Engine
from pipeline.model.processor import PreparedItem, Processor
from pipeline.tasks import ADAPTERS


class Captured:
    """A compiler that counts the graphs it is given and hands them back as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, _inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Captured]:
    compiler = Captured()
    compile_module = nn.Module.compile

    def with_compiler(self: nn.Module, **settings: Any) -> None:
        assert settings == {"fullgraph": True, "dynamic": True}
        compile_module(self, backend=compiler, **settings)

    monkeypatch.setattr(nn.Module, "compile", with_compiler)
    torch._dynamo.reset()
    yield compiler
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint)


def mixture(checkpoint: Checkpoint, seed: int, count: int) -> list[PreparedItem]:
    """Texts and images of random sizes; every third is an image."""
    generator = np.random.default_rng(seed)
    processor = Processor(checkpoint)
    items = []
    for at in range(count):
        if at % 3 == 2:
            height, width = (int(side) * 28 for side in generator.integers(2, 12, size=2))
            pixels = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
            items.append(processor.resized(pixels))
        else:
            ids = generator.integers(50, size=generator.integers(1, 200), dtype=np.int32)
            items.append(PreparedItem(token_ids=ids, pixels=None, truncated=False))
    return items


def test_compiled_layers_give_the_same_and_are_compiled_once(
    checkpoint: Checkpoint, captured: Captured
) -> None:
    plain = Engine(checkpoint, ADAPTERS[0], token_budget=1500)
    compiled = Engine(checkpoint, ADAPTERS[0], token_budget=1500, compiled=True)
    for seed, adapter in enumerate([*ADAPTERS, ADAPTERS[0]]):
        plain.switch(adapter)
        compiled.switch(adapter)
        items = mixture(checkpoint, seed, count=3 + 4 * seed)
        one, other = plain.embed(items, multi=True), compiled.embed(items, multi=True)
        np.testing.assert_allclose(one.single, other.single, rtol=0, atol=1e-6)
        for left, right in zip(one.multi, other.multi, strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=5e-6)
    # a decoder layer and a vision block: not one for each layer, number of tokens or adapter
    assert captured.graphs == 2


def test_nothing_is_compiled_on_a_cpu_unless_asked_for(
    checkpoint: Checkpoint, captured: Captured
) -> None:
    Engine(checkpoint, ADAPTERS[0], token_budget=1500).embed(mixture(checkpoint, 0, 3))
    assert captured.graphs == 0
