"""Pairs that can be learnt: made-up words, and the same ones spelled in capitals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.training.loop import Training
from pipeline.training.pairs import read_pairs
from pipeline.training.spec import TrainSpec

_WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")

MakeTraining = Callable[..., Training]


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    asked = [" ".join(generator.choice(_WORDS, 3)) for _ in range(120)]
    path = tmp_path / "pairs.parquet"
    answers = [text.upper() for text in asked]
    pq.write_table(pa.table({"query": asked, "positive": answers}), path)
    return path


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint)


@pytest.fixture
def training(pairs_file: Path, checkpoint: Checkpoint, tmp_path: Path) -> MakeTraining:
    """A training of a few steps, with other settings if wanted."""

    def make(target: str = "trained", **settings: Any) -> Training:
        plain = {
            "name": "test",
            "model": str(checkpoint.directory),
            "pairs": [{"uri": str(pairs_file)}],
            "steps": 6,
            "batch": {"pairs": 8},
            "optimizer": {"learning_rate": 0.003},
            "held_out": {"share": 0.1, "every": 3},
            "compute": {"dtype": "float32"},
            "output": {"path": str(tmp_path / target), "keep_every": 2},
        }
        spec = TrainSpec.model_validate(plain | settings)
        return Training(
            spec=spec,
            checkpoint=checkpoint,
            pairs=[read_pairs(entry) for entry in spec.pairs],
            target=Path(spec.output.path),
        )

    return make
