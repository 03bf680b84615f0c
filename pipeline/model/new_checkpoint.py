"""A new checkpoint in the file layout of the official jina-embeddings-v4 one.

Which tensors there are is for `layout` to say, from the settings that are written; what their
values are, for whoever asks: `random_checkpoint` for tests and measurements, `training.fresh` for a
network that is to learn. The files reproduce what a loader must cope with: base weights under the
old key names beside adapters under the new ones.

Values are drawn per tensor from its name and the seed, in blocks that go straight to the file, so
memory does not grow with the geometry and the same seed gives the same bytes.

Refuses a directory that is not empty.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

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
from pipeline.model.new_settings import adapter_config, model_config, preprocessor_config
from pipeline.model.new_tokenizer import write_tokenizer

_BLOCK = 1 << 22  # values drawn at a time: 16 MB as fp32
_SHARD_BYTES = 10**9

Shapes = dict[str, Shape]
"""Key in the file -> shape, in the order of the file."""
Distribution = Callable[[str, Shape], tuple[float, float]]
"""(key in the file, shape) to the mean and the deviation of a tensor's values, which are normal."""


def write_new_checkpoint(
    directory: Path,
    geometry: Geometry,
    tokenizer: Tokenizer,
    distribution: Distribution,
    *,
    seed: int,
) -> None:
    """Write a whole checkpoint; config.json comes last, so that a broken-off one cannot be loaded.

    Args:
        directory: a new or an empty one.
        geometry: its sizes.
        tokenizer: with as many entries as the geometry's vocabulary has.
        distribution: of each tensor's values.
        seed: of all of them.

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
    write_tokenizer(directory, tokenizer)
    _write_json(directory / PREPROCESSOR, preprocessor_config(geometry))
    _write_json(directory / ADAPTER_CONFIG, adapters)
    draw = _Draw(distribution, seed)
    keys = {official_adapter_key(tensor): shape for tensor, shape in lora.items()}
    _write_tensors(directory / ADAPTER_WEIGHTS, keys, draw)
    _write_base(directory, {official_base_key(n): s for n, s in base.items()}, draw)
    _write_json(directory / CONFIG, config)


class _Draw:
    """The values of tensors as bf16 bytes, block by block."""

    def __init__(self, distribution: Distribution, seed: int) -> None:
        self._distribution, self._seed = distribution, seed

    def __call__(self, name: str, shape: Shape) -> Iterator[bytes]:
        digest = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        random = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))
        mean, deviation = self._distribution(name, shape)
        left = math.prod(shape)
        while left:
            count = min(left, _BLOCK)
            values = torch.from_numpy(random.standard_normal(count, dtype=np.float32))
            block = values.mul_(deviation).add_(mean).to(torch.bfloat16)
            yield block.view(torch.int16).numpy().tobytes()
            left -= count


def _write_base(directory: Path, shapes: Shapes, draw: "_Draw") -> None:
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
        _write_tensors(directory / file, shard, draw)
        where |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    _write_json(directory / "model.safetensors.index.json", index)


def _write_tensors(path: Path, shapes: Shapes, draw: "_Draw") -> None:
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
            for block in draw(name, shape):
                file.write(block)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
