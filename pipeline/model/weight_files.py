"""Where each tensor of a checkpoint lies, from the headers of its safetensors files.

A header is JSON before the data: reading it costs a few kilobytes for a file of gigabytes, and
nothing is unpickled.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import CheckpointError
from pipeline.model.layout import AdapterTensor, Shape, canonical_base_key, parse_adapter_key


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies."""

    file: Path
    """The safetensors file."""
    key: str
    """Its name in that file."""
    shape: Shape
    """As the file's header says."""


def index_base(directory: Path) -> dict[str, StoredTensor]:
    """Canonical name -> place of every base tensor in the directory's files.

    Raises:
        CheckpointError: no such file, an unreadable one, or a tensor that is there twice.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"{directory} has no *.safetensors file; other weight formats are not read"
        )
    index: dict[str, StoredTensor] = {}
    for file in files:
        for key, shape in _header(file):
            name = canonical_base_key(key)
            if name is None:
                continue
            if name in index:
                raise CheckpointError(f"{file}: tensor {key} is there twice")
            index[name] = StoredTensor(file=file, key=key, shape=shape)
    return index


def index_adapters(file: Path) -> dict[AdapterTensor, StoredTensor]:
    """Place of every adapter tensor in the file.

    Raises:
        CheckpointError: no such file, an unreadable one, or a key that names no adapter tensor.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} is missing")
    index: dict[AdapterTensor, StoredTensor] = {}
    for key, shape in _header(file):
        name = parse_adapter_key(key)
        if name is None:
            raise CheckpointError(f"{file} has the unexpected tensor {key}")
        index[name] = StoredTensor(file=file, key=key, shape=shape)
    return index


def _header(file: Path) -> Iterator[tuple[str, Shape]]:
    """Names and shapes in a safetensors file, read from its JSON header."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
            entries = {k: v for k, v in header.items() if k != "__metadata__"}
            shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
            stop = 8 + length + max((e["data_offsets"][1] for e in entries.values()), default=0)
            if stop != file.stat().st_size:
                raise ValueError(f"it has {file.stat().st_size} bytes, its header says {stop}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors: {error}") from error
    yield from shapes.items()
