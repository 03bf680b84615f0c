"""Merged weights are kept while there is room, and merged again from the base where there is none.

That either way gives the same bits is tested in `test_merge`.
"""

from pathlib import Path

import pytest
import torch

from pipeline.model import adapters
from pipeline.model.adapters import MergedWeights, WeightReader
from pipeline.model.attention import kernel_named
from pipeline.model.backbone import Backbone
from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.tasks import ADAPTERS

CPU = torch.device("cpu")
FIRST, SECOND, THIRD = ADAPTERS


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint)


@pytest.fixture
def merges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The adapters that are really merged, in order."""
    done: list[str] = []
    merged = WeightReader.merged

    def counted(self: WeightReader, module: str, task: str) -> torch.Tensor:
        if not done or done[-1] != task:
            done.append(task)
        return merged(self, module, task)

    monkeypatch.setattr(WeightReader, "merged", counted)
    return done


def backbone(checkpoint: Checkpoint) -> Backbone:
    return Backbone(checkpoint, FIRST, kernel_named("runs"), device=CPU, dtype=torch.bfloat16)


def test_with_room_each_adapter_is_merged_once(checkpoint: Checkpoint, merges: list[str]) -> None:
    network = backbone(checkpoint)
    for adapter in (SECOND, FIRST, THIRD, SECOND, FIRST):
        network.switch(adapter)
    assert merges == [FIRST, SECOND, THIRD]
    assert network.kept_adapters == (FIRST, SECOND, THIRD)


def test_without_room_one_copy_is_held_and_each_switch_merges_anew(
    checkpoint: Checkpoint, merges: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "free_memory", lambda device: 0)
    network = backbone(checkpoint)
    for adapter in (SECOND, FIRST, FIRST, THIRD):
        network.switch(adapter)
    assert merges == [FIRST, SECOND, FIRST, THIRD]
    assert network.kept_adapters == (THIRD,)


def test_room_is_counted_in_copies(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = MergedWeights(checkpoint, CPU, torch.float32)
    size = sum(weight.nbytes for _, weight in weights.of(FIRST))
    for free, kept in ((8 * size, (SECOND,)), (8 * size + 1, (SECOND, THIRD))):
        monkeypatch.setattr(adapters, "free_memory", lambda device, free=free: free)
        for adapter in (SECOND, THIRD) if kept != (SECOND,) else (SECOND,):
            list(weights.of(adapter))
        assert weights.kept == kept


def test_a_merge_that_fails_leaves_no_half_copy(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = backbone(checkpoint)
    merged = WeightReader.merged
    calls = 0

    def failing(self: WeightReader, module: str, task: str) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise MemoryError
        return merged(self, module, task)

    monkeypatch.setattr(WeightReader, "merged", failing)
    with pytest.raises(MemoryError):
        network.switch(SECOND)
    assert network.kept_adapters == (FIRST,)
    network.switch(SECOND)
    assert network.kept_adapters == (FIRST, SECOND)
