"""The engine at the published geometry on a GPU, in one call, with random weights.

What a GPU has to show: that the vectors are right there, how much of its own limit the engine
reaches, what compiling and the attention kernels are worth, and how much faster it is than the
reference's own way. Each part is written down as soon as it is there, so that a call that is cut
off leaves what it had. It needs torch, transformers, peft and this repository, and neither Ray nor
an object store.

    python3 -m pytest --noconftest -m gpu tests/model && python3 -m benchmarks.on_gpu --results $OUT
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.corpus import Lengths, make_pages, make_texts
from benchmarks.peers.reference import ReferenceWay
from benchmarks.record import describe_run, result_file
from benchmarks.setting import ADAPTER, OURS, TASK, Options, options_of, parser
from benchmarks.timing import interleave, ratios
from pipeline.benchmark.chart import draw
from pipeline.benchmark.measure import measure
from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.model.embedder import Embedder
from pipeline.model.engine import Engine
from pipeline.model.geometry import FULL, TINY
from pipeline.model.random_checkpoint import write_random_checkpoint
from pipeline.tasks import ADAPTERS

REFERENCE = "reference, batches of 8 as they come"


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run every part and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--device", default="cuda", help="cpu shows that the script works")
    made.add_argument("--seconds", type=float, default=10.0, help="of each mix")
    made.set_defaults(dtype="bfloat16", threads=8)
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    file = result_file("on_gpu", options)
    record: dict[str, Any] = describe_run("on_gpu", options, _device(parsed.device))
    directory = options.cache / ("tiny-gpu" if options.quick else "full")
    if not (directory / "config.json").is_file():
        write_random_checkpoint(directory, TINY if options.quick else FULL, seed=options.seed)
    checkpoint = open_checkpoint(directory)
    for name, part in _parts(checkpoint, options, parsed, file).items():
        started = time.perf_counter()
        record[name] = part()
        record[name]["took_seconds"] = round(time.perf_counter() - started, 1)
        file.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{name}: {json.dumps(record[name])[:400]}", flush=True)
    return file


def _parts(
    checkpoint: Checkpoint, options: Options, parsed: argparse.Namespace, file: Path
) -> dict[str, Callable[[], dict[str, Any]]]:
    """In order of worth: the first must not wait for the last."""
    device, seconds = parsed.device, parsed.seconds

    def engine(*, compiled: bool) -> Engine:
        return Engine(checkpoint, ADAPTER, device=device, dtype=options.dtype, compiled=compiled)

    def measured(*, compiled: bool) -> dict[str, Any]:
        found = measure(checkpoint, engine(compiled=compiled), multi=True, seconds=seconds)
        draw(found, file.with_name(f"{file.stem}-{'compiled' if compiled else 'eager'}.png"))
        return found.as_record()

    return {
        "compiled": lambda: measured(compiled=device == "cuda"),
        "against_reference": lambda: _against_reference(checkpoint, options, device),
        "eager": lambda: measured(compiled=False),
        "switches": lambda: _switches(engine(compiled=False)),
        "precision": lambda: _precision(checkpoint, options, device),
    }


def _against_reference(checkpoint: Checkpoint, options: Options, device: str) -> dict[str, Any]:
    """Log-normal texts and pages, from strings and bytes to vectors, in turns."""
    directory = checkpoint.directory
    count, pages = (8, 2) if options.quick else (512, 32)
    lengths = Lengths(median=24, longest=96) if options.quick else Lengths()
    texts = make_texts(directory, count, lengths, options.seed)
    images = make_pages(pages, tiny=options.quick)
    ours = Embedder.load(directory, TASK, device=device, dtype=options.dtype)
    peer = ReferenceWay(directory, options.torch_dtype, device)
    found = {}
    for what, items in (("texts", texts), ("pages", images)):
        encode = peer.encode_text if what == "texts" else peer.encode_image

        def both(encode: Any = encode, items: Any = items) -> None:
            encode(items, multi=False)
            encode(items, multi=True)

        programs = {
            OURS: lambda items=items: ours.embed(items, multi=True),
            f"{REFERENCE}, single": lambda e=encode, items=items: e(items, multi=False),
            f"{REFERENCE}, single and multi": both,
        }
        cosines = (ours.embed(items).single * np.stack(encode(items, multi=False))).sum(axis=1)
        timings = interleave(programs, options.repeats)
        found[what] = {
            "items": len(items),
            "largest_1_minus_cosine": float(1 - cosines.min()),
            "timings": {name: [asdict(run) for run in runs] for name, runs in timings.items()},
            "ratios": {name: asdict(ratio) for name, ratio in ratios(timings, OURS).items()},
        }
    return found


def _switches(engine: Engine) -> dict[str, Any]:
    """Seconds of a first switch, which merges, and of one back to a copy that is kept."""

    def timed(adapter: str) -> float:
        started = time.perf_counter()
        engine.switch(adapter)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return {
        "merge_seconds": [timed(adapter) for adapter in ADAPTERS if adapter != ADAPTER],
        "back_seconds": [timed(adapter) for adapter in ADAPTERS],
        "kept": list(engine.backbone.kept_adapters),
    }


def _precision(checkpoint: Checkpoint, options: Options, device: str) -> dict[str, Any]:
    """1 - cosine of the device's vectors to those of this machine's CPU in float32, few items."""
    directory = checkpoint.directory
    noise = np.random.default_rng(options.seed).integers(256, size=(84, 112, 3), dtype=np.uint8)
    texts = make_texts(directory, 2, Lengths(median=30, longest=40), options.seed)
    items = [*texts, Image.fromarray(noise)]
    one, right = (
        Embedder.load(directory, TASK, device=where, dtype=dtype).embed(items, multi=True)
        for where, dtype in ((device, options.dtype), ("cpu", "float32"))
    )
    assert one.multi is not None and right.multi is not None
    pairs = zip(one.multi, right.multi, strict=True)
    return {
        "single": (1 - (one.single * right.single).sum(axis=1)).tolist(),
        "multi_mean": [float((1 - (a * b).sum(axis=1)).mean()) for a, b in pairs],
    }


def _device(device: str) -> dict[str, Any]:
    if device == "cpu":
        return {"device": "cpu"}
    found = torch.cuda.get_device_properties(0)
    return {
        "device": found.name,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
    }


if __name__ == "__main__":
    main()
