"""Run an engine over the mixes and say how fast it was, in plain units and as shares.

The share of the ceiling (model FLOP utilisation) is the operations that the items need, counted by
`flops`, for each second, over those of a square matrix product measured on the same device in the
same run: 100 % would be a network that is one perfect matrix product.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import psutil
import torch

from pipeline.benchmark.ceilings import Ceilings, measure_ceilings, wait_for
from pipeline.benchmark.flops import FlopCounter
from pipeline.benchmark.mixes import Mix, mixes_for
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.device import name_of
from pipeline.model.engine import Engine
from pipeline.model.processor import PreparedItem

_PACKS = {"cpu": 1, "cuda": 16}
"""Packs of one call, by device type: a unit of work is many packs on a GPU."""

_SHARE_OF_A_CALL = 0.25
"""Of the time of a mix: one call is not made to take more."""


@dataclass(frozen=True, kw_only=True)
class MixResult:
    """One mix."""

    name: str
    """Of the mix."""
    items_per_second: float
    """Texts, or pages."""
    tokens_per_second: float
    """Tokens of the decoder."""
    patches_per_second: float
    """Image patches of the vision tower."""
    ceiling_share: float
    """Of the measured rate of matrix products; see the module."""
    busy_share: float
    """Of the wall time in which the device was at work on packs."""
    padding_share: float
    """Of the tokens computed that belong to no item."""
    peak_memory: int
    """Bytes: the most allocated on a CUDA device, or what the process has on a CPU."""
    items: int
    """How many were embedded."""
    seconds: float
    """How long that took."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """All of a run."""

    device: str
    """Its name."""
    dtype: str
    """What the network computed in."""
    attention: str
    """The kernel."""
    compiled: bool
    """Whether the layers were compiled."""
    token_budget: int
    """Tokens and patches of a pack."""
    multi: bool
    """Whether multi-vectors were made beside the single ones."""
    ceilings: Ceilings
    """What the device can do."""
    mixes: tuple[MixResult, ...]
    """What the engine did."""

    def as_record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def measure(checkpoint: Checkpoint, engine: Engine, *, multi: bool, seconds: float) -> Measurement:
    """Measure an engine on every mix.

    Args:
        checkpoint: the engine's.
        engine: loaded; its budget is found first if it is not known.
        multi: whether to make multi-vectors too.
        seconds: about how long each mix is repeated.
    """
    ceilings = measure_ceilings(engine.device, engine.dtype)
    engine.warm_up()
    counter = FlopCounter(checkpoint, engine.backbone.patches)
    return Measurement(
        device=name_of(engine.device),
        dtype=str(engine.dtype).removeprefix("torch."),
        attention=engine.attention,
        compiled=engine.compiled,
        token_budget=engine.token_budget,
        multi=multi,
        ceilings=ceilings,
        mixes=tuple(
            _measure_mix(mix, engine, counter, ceilings, multi=multi, seconds=seconds)
            for mix in mixes_for(checkpoint)
        ),
    )


def _measure_mix(
    mix: Mix,
    engine: Engine,
    counter: FlopCounter,
    ceilings: Ceilings,
    *,
    multi: bool,
    seconds: float,
) -> MixResult:
    items = _enough(mix, engine, seconds)
    operations = counter.of(items, multi=multi)
    engine.embed(items, multi=multi)
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.device)
    engine.meter.reset()
    wait_for(engine.device)
    started = time.perf_counter()
    calls, wall = 0, 0.0
    while wall < seconds:
        engine.embed(items, multi=multi)
        calls, wall = calls + 1, time.perf_counter() - started
    meter = engine.meter
    return MixResult(
        name=mix.name,
        items_per_second=meter.items / wall,
        tokens_per_second=meter.tokens / wall,
        patches_per_second=meter.patches / wall,
        ceiling_share=calls * operations / wall / ceilings.flops_per_second,
        busy_share=meter.busy_seconds / wall,
        padding_share=meter.padding / (meter.tokens + meter.padding),
        peak_memory=_memory(engine.device),
        items=meter.items,
        seconds=wall,
    )


def _enough(mix: Mix, engine: Engine, seconds: float) -> Sequence[PreparedItem]:
    """Items of one call: some full packs, but no more than the time allows.

    Twice as many again and again, since one short call says little of how long a larger one takes.
    """
    source = mix.items()
    items = [next(source)]
    wanted = _PACKS.get(engine.device.type, 1) * engine.token_budget
    while sum(map(engine.cost, items)) < wanted:
        engine.embed(items)
        started = time.perf_counter()
        engine.embed(items)
        if time.perf_counter() - started > seconds * _SHARE_OF_A_CALL:
            break
        items += islice(source, len(items))
    return items


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
