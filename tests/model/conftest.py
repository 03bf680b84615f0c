"""A freshly written random checkpoint and its tensors, for the tests of the writer."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.model.geometry import TINY
from pipeline.model.random_checkpoint import write_random_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint") / "new" / "tiny"
    write_random_checkpoint(directory, TINY)
    return directory


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(checkpoint.glob("model-*.safetensors")):
        tensors |= load_file(shard)
    return tensors


@pytest.fixture(scope="module")
def adapters(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "adapters" / "adapter_model.safetensors")
