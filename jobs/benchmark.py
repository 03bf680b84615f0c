"""`nightjar benchmark`: how fast a checkpoint embeds on this device, and what that costs.

Every rate stands beside the device's own limit, measured in the same run. On a cluster one device
of it is measured: a GPU when there is one, else the CPUs of a node.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.benchmark.measure import Measurement, MixResult
from pipeline.software import installed

RESULT, CHART = "benchmark.json", "benchmark.png"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be measured; small enough to send to a worker."""

    model: str
    """A directory, an object-store URL or a hub id."""
    adapter: str | None
    """Which to merge; None for the checkpoint's first."""
    dtype: str
    """auto, float32 or bfloat16."""
    token_budget: int | None
    """None to measure it."""
    compiled: bool | None
    """Whether torch compiles the layers; None for the default of the device."""
    multi: bool
    """Whether to make multi-vectors too."""
    seconds: float
    """Of each mix."""


def run(arguments: argparse.Namespace) -> None:
    """The command."""
    request = Request(
        model=arguments.model,
        adapter=arguments.adapter,
        dtype=arguments.dtype,
        token_budget=arguments.token_budget,
        compiled=arguments.compile,
        multi=arguments.multi,
        seconds=arguments.seconds,
    )
    directory = Path(arguments.output)
    # a path that cannot be written should not be found out after the measurement
    directory.mkdir(parents=True, exist_ok=True)
    measurement = _measured(request, arguments.address)
    _print(measurement, arguments.price)
    (directory / RESULT).write_text(
        json.dumps(_record(request, measurement, arguments.price), indent=2)
    )
    from pipeline.benchmark.chart import draw

    draw(measurement, directory / CHART)
    print(f"written: {directory / RESULT} and {directory / CHART}")


def measure_here(request: Request, threads: int | None = None) -> Measurement:
    """Measure the device of this process.

    Raises:
        UserError: the checkpoint, the adapter or the dtype is wrong.
    """
    import torch

    from pipeline.benchmark.measure import measure
    from pipeline.model.engine import Engine
    from pipeline.stages.opened import open_model

    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = open_model(request.model)
    engine = Engine(
        checkpoint,
        request.adapter or checkpoint.task_names[0],
        dtype=request.dtype,
        token_budget=request.token_budget,
        compiled=request.compiled,
    )
    return measure(checkpoint, engine, multi=request.multi, seconds=request.seconds)


def _measured(request: Request, address: str) -> Measurement:
    if address == "none":
        return measure_here(request)
    import ray

    from pipeline.stages.cluster import connected

    with connected(address) as cluster:
        gpus = 1 if cluster.gpus else 0
        cpus = 0 if gpus else cluster.node_cpus
        task = ray.remote(num_gpus=gpus, num_cpus=cpus, max_retries=0)(measure_here)
        found: Measurement = ray.get(task.remote(request, None if gpus else int(cpus)))
        return found


def _print(measurement: Measurement, price: float | None) -> None:
    ceilings = measurement.ceilings
    how = f"{measurement.dtype}, {measurement.attention} attention"
    how += ", compiled" if measurement.compiled else ", not compiled"
    print(f"{measurement.device}: {how}, token budget {measurement.token_budget:,}")
    print(
        f"matrix products {ceilings.flops_per_second / 1e12:,.2f} TFLOP/s, "
        f"memory {ceilings.bytes_per_second / 1e9:,.1f} GB/s"
    )
    table = Table(box=None, pad_edge=False)
    heads = ("items", "items/s", "tokens/s", "% of limit", "busy", "padding", "memory", "per hour")
    for head in ("mix", *heads, *(() if price is None else ("per million",))):
        table.add_column(head, justify="left" if head == "mix" else "right")
    for mix in measurement.mixes:
        table.add_row(mix.name, *_cells(mix, price))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _cells(mix: MixResult, price: float | None) -> tuple[str, ...]:
    cost = () if price is None else (f"{cost_per_million(mix, price):,.2f}",)
    return (
        f"{mix.items:,}",
        f"{mix.items_per_second:,.1f}",
        f"{mix.tokens_per_second:,.0f}",
        f"{100 * mix.ceiling_share:.1f}",
        f"{100 * mix.busy_share:.1f} %",
        f"{100 * mix.padding_share:.1f} %",
        f"{mix.peak_memory / 1e9:.1f} GB",
        f"{mix.items_per_second * 3600:,.0f}",
        *cost,
    )


def cost_per_million(mix: MixResult, price: float) -> float:
    """What a million items of a mix cost, at a price of the device for an hour."""
    return 1e6 / mix.items_per_second / 3600 * price


def _record(request: Request, measurement: Measurement, price: float | None) -> Mapping[str, Any]:
    record = measurement.as_record()
    for mix, result in zip(record["mixes"], measurement.mixes, strict=True):
        mix["items_per_hour"] = result.items_per_second * 3600
        if price is not None:
            mix["cost_per_million"] = cost_per_million(result, price)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["nightjar", *sys.argv[1:]]),
        "model": request.model,
        "price_per_hour": price,
        "versions": installed(("nightjar", "torch", "transformers")),
        **record,
    }
