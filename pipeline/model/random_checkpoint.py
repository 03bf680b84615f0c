"""Random weights in the file layout of the official jina-embeddings-v4 checkpoint.

Tests, examples and throughput measurements need a model but not its knowledge, and the real weights
have a non-commercial licence: so we write our own. The files reproduce what a loader must cope
with: base weights under the old key names beside adapters under the new ones. Which tensors there
are is for `layout` to say, from the settings that are written.

TINY is 1 MB and takes 0.2 s. FULL has the real geometry: 3.75 B parameters, 8 GB, about a minute.
Values are drawn per tensor from its name and the seed, in blocks that go straight to the file, so
memory does not grow with the geometry and the same seed gives the same bytes. All of it is visible
in the model's output: activations stay near 1, no bias is zero, and every adapter moves its
projection by half of the projection's own size (times alpha / rank).

Refuses a directory that is not empty.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import CheckpointError
from pipeline.model.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, PREPROCESSOR
from pipeline.model.geometry import Geometry
from pipeline.model.layout import (
    Shape,
    adapter_shapes,
    base_shapes,
    official_adapter_key,
    official_base_key,
    targeted_modules,
)
from pipeline.model.random_settings import adapter_config, model_config, preprocessor_config
from pipeline.model.random_tokenizer import write_tokenizer

_BLOCK = 1 << 22  # values drawn at a time: 16 MB as fp32
_SHARD_BYTES = 10**9

Shapes = dict[str, Shape]
"""Key in the file -> shape, in the order of the file."""


def write_random_checkpoint(directory: Path, geometry: Geometry, *, seed: int = 0) -> None:
    """Write a whole checkpoint; config.json comes last, so that a broken-off one cannot be loaded.

    Raises:
        CheckpointError: `directory` exists and is not an empty directory.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(
            f"{directory}: is not an empty directory; name a new one for the random checkpoint"
        )
    config, adapters = model_config(geometry), adapter_config(geometry)
    base = base_shapes(config)
    targeted = targeted_modules(adapters, base)
    lora = adapter_shapes(base, targeted, config["task_names"], adapters["r"])
    (directory / ADAPTER_CONFIG).parent.mkdir(parents=True)
    write_tokenizer(directory, geometry.vocabulary)
    _write_json(directory / PREPROCESSOR, preprocessor_config(geometry))
    _write_json(directory / ADAPTER_CONFIG, adapters)
    _write_tensors(
        directory / ADAPTER_WEIGHTS, {official_adapter_key(t): s for t, s in lora.items()}, seed
    )
    _write_base(directory, {official_base_key(n): s for n, s in base.items()}, seed)
    _write_json(directory / CONFIG, config)


def _write_base(directory: Path, shapes: Shapes, seed: int) -> None:
    """Write the base in two shards at least, and the index that says what is where."""
    sizes = {name: 2 * math.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    limit = min(_SHARD_BYTES, total // 2)
    shards: list[Shapes] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and sum(sizes[n] for n in shards[-1]) + sizes[name] > limit:
            shards.append({})
        shards[-1][name] = shape
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_tensors(directory / file, shard, seed)
        where |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    _write_json(directory / "model.safetensors.index.json", index)


def _write_tensors(path: Path, shapes: Shapes, seed: int) -> None:
    """Write one safetensors file, tensor by tensor.

    By hand, because safetensors' own writer wants the whole file in memory. Format: length of the
    header (u64, little-endian), header (JSON, padded with spaces to 8 bytes), values.
    https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            for block in _draw(name, shape, seed):
                file.write(block)


def _draw(name: str, shape: Shape, seed: int) -> Iterator[bytes]:
    """The values of one tensor as bf16 bytes, block by block."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    random = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))
    mean, deviation = _distribution(name, shape)
    left = math.prod(shape)
    while left:
        count = min(left, _BLOCK)
        values = torch.from_numpy(random.standard_normal(count, dtype=np.float32))
        block = values.mul_(deviation).add_(mean).to(torch.bfloat16)
        yield block.view(torch.int16).numpy().tobytes()
        left -= count


def _distribution(name: str, shape: Shape) -> tuple[float, float]:
    """Mean and deviation that keep activations near 1 and every tensor visible in the output."""
    if name.endswith(".bias"):
        return 0.0, 0.2
    if len(shape) == 1:  # a norm
        return 1.0, 0.1
    if name.endswith("embed_tokens.weight"):
        return 0.0, 1.0
    gain = 0.5 if ".lora_B." in name else 1.0
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
