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
from pipeline.model.processor import PreparedItem
from pipeline.tasks import ADAPTERS
from tests.model.mixtures import mixture


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


def items_of(checkpoint: Checkpoint, seed: int, count: int) -> list[PreparedItem]:
    """Every third is an image."""
    return mixture(checkpoint, seed, count, every=3, tokens=(1, 200), sides=(2, 12))


def test_compiled_layers_give_the_same_and_are_compiled_once(
    checkpoint: Checkpoint, captured: Captured
) -> None:
    plain = Engine(checkpoint, ADAPTERS[0], token_budget=1500)
    compiled = Engine(checkpoint, ADAPTERS[0], token_budget=1500, compiled=True)
    for seed, adapter in enumerate([*ADAPTERS, ADAPTERS[0]]):
        plain.switch(adapter)
        compiled.switch(adapter)
        items = items_of(checkpoint, seed, count=3 + 4 * seed)
        one, other = plain.embed(items, multi=True), compiled.embed(items, multi=True)
        np.testing.assert_allclose(one.single, other.single, rtol=0, atol=1e-6)
        for left, right in zip(one.multi, other.multi, strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=5e-6)
    # a decoder layer and a vision block: not one for each layer, number of tokens or adapter
    assert captured.graphs == 2


def test_nothing_is_compiled_on_a_cpu_unless_asked_for(
    checkpoint: Checkpoint, captured: Captured
) -> None:
    Engine(checkpoint, ADAPTERS[0], token_budget=1500).embed(items_of(checkpoint, 0, 3))
    assert captured.graphs == 0
