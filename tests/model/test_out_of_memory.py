"""Too little memory: packs are halved, the budget stays lowered, one item at most is given up."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import Embedder
from pipeline.errors import Reason, RowError
from pipeline.model.budget import TokenBudget
from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.model.engine import Engine
from pipeline.model.processor import PreparedItem, Processor
from pipeline.model.staging import Pack

OUT_OF_MEMORY: tuple[Callable[[], Exception], ...] = (
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    MemoryError,
)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint)


def text(tokens: int, seed: int = 0) -> PreparedItem:
    ids = np.random.default_rng([tokens, seed]).integers(50, size=tokens, dtype=np.int32)
    return PreparedItem(token_ids=ids, pixels=None, truncated=False)


class Cramped(Engine):
    """An engine on a device that holds packs up to a size; a fault no CPU gives on demand."""

    most = 0
    fault: Callable[[], Exception] = MemoryError

    def _vectors(self, staged: Pack, wanted: object) -> object:
        if sum(staged.lengths) > self.most:
            raise type(self).fault()
        return super()._vectors(staged, wanted)  # type: ignore[arg-type]


def cramped(checkpoint: Checkpoint, most: int, budget: int | None) -> Cramped:
    engine = Cramped(checkpoint, "retrieval", token_budget=budget)
    engine.most = most
    return engine


@pytest.mark.parametrize("fault", OUT_OF_MEMORY)
@pytest.mark.fault("compute.out_of_memory")
def test_a_pack_that_does_not_fit_is_halved_until_it_does(
    checkpoint: Checkpoint, fault: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cramped, "fault", staticmethod(fault))
    items = [text(100, seed) for seed in range(40)]
    engine = cramped(checkpoint, most=450, budget=4000)
    found = engine.embed(items, multi=True)
    right = Engine(checkpoint, "retrieval", token_budget=4000).embed(items, multi=True)
    assert found.faults == {}
    np.testing.assert_allclose(found.single, right.single, rtol=0, atol=1e-6)
    for one, other in zip(found.multi, right.multi, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-6)
    # and the lesson is kept: 4000, 2000, 1000, 500 (five items), 250
    assert engine.token_budget == 250


@pytest.mark.fault("compute.out_of_memory")
def test_an_item_that_does_not_fit_alone_is_given_up_and_its_neighbours_are_not(
    checkpoint: Checkpoint,
) -> None:
    items = [text(30), text(900), text(50), text(901), text(40)]
    engine = cramped(checkpoint, most=500, budget=2000)
    found = engine.embed(items, dims=[16, 64], multi=True)
    assert {at: fault.reason for at, fault in found.faults.items()} == {1: "oom", 3: "oom"}
    assert "its 900 tokens and image patches do not fit the memory of" in str(found.faults[1])
    assert all(not found.singles[dim][at].any() for dim in (16, 64) for at in (1, 3))
    assert [len(vectors) for vectors in found.multi] == [30, 0, 50, 0, 40]
    well = [0, 2, 4]
    right = Engine(checkpoint, "retrieval", token_budget=2000).embed([items[i] for i in well])
    np.testing.assert_allclose(found.singles[64][well], right.single, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def one_for_all(checkpoint: Checkpoint) -> Cramped:
    return cramped(checkpoint, most=0, budget=1)


@settings(
    max_examples=25,
    # the engine is of the module, and each example gives it a budget of its own
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=25),
    most=st.integers(1, 150),
    budget=st.integers(1, 3000),
)
def test_whatever_fits_alone_is_embedded_and_nothing_else_is_lost(
    one_for_all: Cramped, lengths: list[int], most: int, budget: int
) -> None:
    items = [text(length, seed) for seed, length in enumerate(lengths)]
    one_for_all.most = most
    one_for_all._budget = TokenBudget("", one_for_all.device, fixed=budget)
    found = one_for_all.embed(items)
    assert set(found.faults) == {at for at, length in enumerate(lengths) if length > most}
    norms = np.linalg.norm(found.single, axis=1)
    expected = [0.0 if length > most else 1.0 for length in lengths]
    np.testing.assert_allclose(norms, expected, rtol=0, atol=1e-5)


def test_another_error_is_not_taken_for_too_little_memory(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cramped, "fault", staticmethod(lambda: RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        cramped(checkpoint, most=10, budget=100).embed([text(20)])


def test_the_lowered_budget_is_remembered_on_the_host_unless_the_user_fixed_it(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    items = [text(400, seed) for seed in range(4)]
    cramped(checkpoint, most=500, budget=1600).embed(items)
    assert not list(tmp_path.rglob("*.json"))
    engine = cramped(checkpoint, most=10**9, budget=None)
    assert engine.token_budget >= 1024
    engine.most = 500
    engine.embed(items)
    assert engine.token_budget <= 800
    assert Engine(checkpoint, "code").token_budget == engine.token_budget


def test_the_library_raises_what_the_pipeline_sets_aside(checkpoint: Checkpoint) -> None:
    embedder = Embedder(Processor(checkpoint), cramped(checkpoint, 5, 100), "retrieval.query")
    with pytest.raises(RowError, match="do not fit the memory") as raised:
        embedder.embed(["short", "a text of rather more tokens than five, by any count"])
    assert raised.value.reason is Reason.OOM


REAL = """
    import resource, sys
    import numpy as np, torch
    from pipeline.model.checkpoint import open_checkpoint
    from pipeline.model.engine import Engine
    from pipeline.model.processor import PreparedItem

    torch.set_num_threads(1)
    engine = Engine(open_checkpoint(sys.argv[1]), "retrieval", token_budget=60_000)
    ids = np.arange(30_000, dtype=np.int32) % 50
    items = [PreparedItem(token_ids=ids[:n], pixels=None, truncated=False) for n in (9, 30_000, 7)]
    small = [items[0], items[2]]
    right = engine.embed(small, multi=True)
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    # room for what a short text takes, not for the activations of 30,000 tokens
    resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
    found = engine.embed(items, multi=True)
    assert {at: str(fault.reason) for at, fault in found.faults.items()} == {1: "oom"}, found.faults
    assert np.allclose(found.single[[0, 2]], right.single, atol=1e-6)
    print("given up alone, budget", engine.token_budget)
"""


@pytest.mark.fault("compute.out_of_memory")
def test_memory_that_really_runs_out_costs_one_item(tiny_checkpoint: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REAL), str(tiny_checkpoint)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("given up alone, budget")
