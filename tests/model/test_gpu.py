"""The engine on a CUDA device against the engine on a CPU in float32.

Self-contained, so that it runs where only torch, transformers and pytest are: the GPU machine has
neither Ray nor an object store (`pytest --noconftest -m gpu tests/model`).
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.model.engine import Engine
from pipeline.model.outputs import Embeddings
from pipeline.model.processor import PreparedItem
from pipeline.tasks import ADAPTERS
from tests.model.mixtures import mixture
from tests.model.parity_checkpoints import GEOMETRIES, write_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


@pytest.fixture(scope="module", params=GEOMETRIES)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    return open_checkpoint(write_checkpoint(tmp_path_factory.mktemp("gpu"), request.param))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that remembers no token budget."""
    monkeypatch.setenv("HOME", str(tmp_path))


def items_of(checkpoint: Checkpoint, count: int = 60) -> list[PreparedItem]:
    """Texts of 3 to 900 tokens, and an image after every third."""
    return mixture(checkpoint, 0, count, every=4, tokens=(3, 900), sides=(3, 9))


def on_cpu(checkpoint: Checkpoint, items: list[PreparedItem]) -> Embeddings:
    engine = Engine(checkpoint, ADAPTERS[0], device="cpu", dtype="float32", token_budget=4096)
    return engine.embed(items, multi=True)


def demand_close(found: Embeddings, right: Embeddings, single: float, multi: float) -> None:
    """1 - cosine: of every single vector, and the mean over the vectors of a multi-vector."""
    cosines = (found.single * right.single).sum(axis=1)
    assert (1 - cosines).max() < single
    for one, other in zip(found.multi, right.multi, strict=True):
        assert (1 - (one * other).sum(axis=1)).mean() < multi


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("multi_dtype", ["float32", "float16"])
def test_bfloat16_is_close_to_float32_on_a_cpu(
    checkpoint: Checkpoint, compiled: bool, multi_dtype: str
) -> None:
    items = items_of(checkpoint)
    # several packs in flight, and one of a few items at the end
    engine = Engine(checkpoint, ADAPTERS[0], device="cuda", token_budget=4096, compiled=compiled)
    found = engine.embed(items, multi=True, multi_dtype=multi_dtype)
    demand_close(found, on_cpu(checkpoint, items), single=1e-3, multi=3e-3)
    assert engine.meter.busy_seconds > 0
    assert engine.meter.padding > 0


@pytest.mark.parametrize("attention", ["auto", "runs"])
def test_float32_equals_float32_on_a_cpu(checkpoint: Checkpoint, attention: str) -> None:
    items = items_of(checkpoint, count=24)
    engine = Engine(
        checkpoint,
        ADAPTERS[0],
        device="cuda",
        dtype="float32",
        token_budget=4096,
        compiled=False,
        attention=attention,
    )
    found, right = engine.embed(items, multi=True), on_cpu(checkpoint, items)
    np.testing.assert_allclose(found.single, right.single, rtol=0, atol=1e-5)
    for one, other in zip(found.multi, right.multi, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-5)


def test_many_calls_give_the_same_bits(checkpoint: Checkpoint) -> None:
    # a copy that is read before it has arrived would show here, now and then
    items = items_of(checkpoint)
    engine = Engine(checkpoint, ADAPTERS[0], device="cuda", token_budget=2048)
    first = engine.embed(items, multi=True)
    for _ in range(20):
        again = engine.embed(items, multi=True)
        assert np.array_equal(first.single, again.single)
        assert all(map(np.array_equal, first.multi, again.multi))


def test_switching_back_and_forth_gives_the_same_bits(checkpoint: Checkpoint) -> None:
    items = items_of(checkpoint, count=12)
    engine = Engine(checkpoint, ADAPTERS[0], device="cuda", token_budget=4096)
    found: dict[str, np.ndarray] = {}
    for adapter in (*ADAPTERS, *ADAPTERS[::-1], *ADAPTERS):
        engine.switch(adapter)
        vectors = engine.embed(items).single
        assert np.array_equal(found.setdefault(adapter, vectors), vectors)


def test_memory_that_runs_out_lowers_the_budget_and_changes_no_vector(
    checkpoint: Checkpoint,
) -> None:
    items = items_of(checkpoint)
    engine = Engine(checkpoint, ADAPTERS[0], device="cuda", token_budget=10**6, compiled=False)
    right = engine.embed(items, multi=True)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    ballast = torch.empty(free - (48 << 20), dtype=torch.uint8, device="cuda")
    found = engine.embed(items * 4, multi=True)
    del ballast
    assert found.faults == {}
    assert engine.token_budget < 10**6
    for start in range(0, len(found.single), len(items)):
        cosines = (found.single[start : start + len(items)] * right.single).sum(axis=1)
        assert (1 - cosines).max() < 1e-3


def test_the_budget_is_found_and_a_maximal_text_passes_alone(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, ADAPTERS[0], device="cuda")
    assert 1024 <= engine.token_budget <= 65536
    longest = PreparedItem(
        token_ids=np.arange(32_768, dtype=np.int32) % 50, pixels=None, truncated=False
    )
    found = engine.embed([longest, *items_of(checkpoint, count=3)], multi=True)
    assert len(found.multi[0]) == 32_768
    np.testing.assert_allclose(np.linalg.norm(found.single, axis=1), 1, atol=1e-5)
