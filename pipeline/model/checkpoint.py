"""A checkpoint in the official file layout, opened strictly and without loading a weight.

Only headers are read here, so a job can refuse a bad checkpoint in a fraction of a second, before
any GPU is asked for. Weights come from safetensors alone: nothing is unpickled and no code of the
checkpoint is run. A hub id is resolved by huggingface_hub, a local directory is used in place.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError, SpecError
from pipeline.model.layout import (
    AdapterTensor,
    adapter_shapes,
    base_shapes,
    demand_coverage,
    targeted_modules,
)
from pipeline.model.settings import read_adapter_config, read_config, read_preprocessor
from pipeline.model.weight_files import StoredTensor, index_adapters, index_base

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
PREPROCESSOR = "preprocessor_config.json"
ADAPTER_CONFIG = "adapters/adapter_config.json"
ADAPTER_WEIGHTS = "adapters/adapter_model.safetensors"

_HUB_ID = re.compile(r"^[\w][\w.-]*/[\w][\w.-]*$")
_HUB_SETTINGS = ("*.json", "adapters/*.json")
_HUB_FILES = ("*.json", "*.safetensors", "adapters/*", "*.txt", "LICENSE*", "README.md")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A checkpoint without its weights: all that preparing an item needs."""

    directory: Path
    """Local folder with the official files."""
    config: Mapping[str, Any]
    """The parsed config.json."""
    preprocessor: Mapping[str, Any]
    """The parsed preprocessor_config.json."""
    adapter_config: Mapping[str, Any]
    """The parsed adapters/adapter_config.json."""

    @property
    def hidden_size(self) -> int:
        """Size of a full single vector."""
        return int(self.text_config["hidden_size"])

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The decoder's part of config.json, which the official file keeps at the top level."""
        text: Mapping[str, Any] = self.config.get("text_config") or self.config
        return text

    @property
    def matryoshka_dims(self) -> tuple[int, ...]:
        """The sizes a single vector may be cut to."""
        return tuple(self.config["matryoshka_dims"])

    @property
    def multi_vector_dim(self) -> int:
        """Size of each vector of a multi-vector."""
        return int(self.config["multi_vector_projector_dim"])

    @property
    def task_names(self) -> tuple[str, ...]:
        """The adapters that are there."""
        return tuple(self.config["task_names"])

    @property
    def lora_scale(self) -> float:
        """alpha / r, by which B A is multiplied when merged (LoRA, arXiv 2106.09685, sec. 4.1)."""
        return float(self.adapter_config["lora_alpha"]) / float(self.adapter_config["r"])

    @property
    def pixel_bounds(self) -> tuple[int, int]:
        """(min_pixels, max_pixels) of a resized image, from the checkpoint's own file."""
        return int(self.preprocessor["min_pixels"]), int(self.preprocessor["max_pixels"])

    @property
    def patch_size(self) -> int:
        """Side of an image patch, in pixels."""
        return int(self.config["vision_config"]["patch_size"])

    def demand_dim(self, dim: int | None, field: str = "dim") -> int:
        """The size of a single vector: the full one for None, else one of matryoshka_dims.

        Raises:
            SpecError: lists the sizes there are.
        """
        if dim is None:
            return self.hidden_size
        if dim not in self.matryoshka_dims:
            raise SpecError(
                f"{field}: {dim} is not one of the checkpoint's matryoshka_dims, "
                f"{', '.join(map(str, self.matryoshka_dims))}"
            )
        return dim

    def demand_adapters(self, adapters: Iterable[str]) -> None:
        """Refuse adapters the checkpoint does not have.

        Raises:
            CheckpointError: lists those that are there.
        """
        for adapter in adapters:
            if adapter not in self.task_names:
                raise CheckpointError(
                    f"{self.directory} has no adapter {adapter!r}; it has "
                    f"{', '.join(self.task_names)}"
                )

    def demand_same(self, hashes: Mapping[str, str]) -> None:
        """Refuse content other than that with these hashes.

        Raises:
            CheckpointError: names the first file that differs.
        """
        for name, expected in hashes.items():
            file = self.directory / name
            if not file.is_file() or _sha256(file) != expected:
                raise CheckpointError(
                    f"{file} on this host is not the file that the run was "
                    "planned with: give every host the same checkpoint"
                )


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Settings):
    """An opened checkpoint: its settings and the places of its tensors."""

    base: Mapping[str, StoredTensor]
    """Canonical name -> base tensor, projector included."""
    adapters: Mapping[AdapterTensor, StoredTensor]
    """Every adapter tensor."""

    @cached_property
    def hashes(self) -> dict[str, str]:
        """sha256 of each file that decides an embedding's value, by its relative path.

        Reads every byte: about 5 s for the real checkpoint on a local disk.
        """
        files = {CONFIG, TOKENIZER, PREPROCESSOR, ADAPTER_CONFIG, ADAPTER_WEIGHTS}
        files |= {str(t.file.relative_to(self.directory)) for t in self.base.values()}
        return {name: _sha256(self.directory / name) for name in sorted(files)}

    @property
    def fingerprint(self) -> str:
        """Of all those files together."""
        listing = json.dumps(self.hashes, sort_keys=True)
        return hashlib.sha256(listing.encode()).hexdigest()


def open_settings(path: str | Path) -> Settings:
    """Open a checkpoint's settings: its weights need not be there.

    Args:
        path: as of `open_checkpoint`.

    Raises:
        CheckpointError: no such directory, or a missing file.
    """
    return _settings_in(_resolve(str(path), _HUB_SETTINGS))


def _settings_in(directory: Path) -> Settings:
    settings = Settings(
        directory=directory,
        config=read_config(directory / CONFIG),
        preprocessor=read_preprocessor(directory / PREPROCESSOR),
        adapter_config=read_adapter_config(directory / ADAPTER_CONFIG),
    )
    if not (directory / TOKENIZER).is_file():
        raise CheckpointError(f"{directory / TOKENIZER} is missing")
    return settings


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open and check a checkpoint: every file present, every tensor there and of the right shape.

    Args:
        path: a local directory, or a hub id (`owner/name`) that huggingface_hub resolves.

    Raises:
        CheckpointError: no such directory, a missing file, a missing, unexpected or wrongly shaped
            tensor.
    """
    directory = _resolve(str(path), _HUB_FILES)
    settings = _settings_in(directory)
    config, adapter_config = settings.config, settings.adapter_config
    base = index_base(directory)
    expected = base_shapes(config)
    demand_coverage({n: t.shape for n, t in base.items()}, expected, f"checkpoint {directory}")
    adapters = index_adapters(directory / ADAPTER_WEIGHTS)
    demand_coverage(
        {n: t.shape for n, t in adapters.items()},
        adapter_shapes(
            expected,
            targeted_modules(adapter_config, expected),
            tuple(config["task_names"]),
            adapter_config["r"],
        ),
        f"adapter file {directory / ADAPTER_WEIGHTS}",
    )
    return Checkpoint(**vars(settings), base=base, adapters=adapters)


def _resolve(path: str, files: Sequence[str]) -> Path:
    directory = Path(path).expanduser()
    if directory.is_dir():
        return directory
    if directory.exists() or not _HUB_ID.match(path):
        raise CheckpointError(
            f"{path!r} is not a checkpoint directory; give a directory with {CONFIG}, or a hub id "
            "(owner/name)"
        )
    # imported here: only a hub id needs the client and its second of import time
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, allow_patterns=list(files)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path!r} is no local directory, and the hub could not provide it: {reason}"
        ) from error


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
