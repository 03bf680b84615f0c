"""No vector that is not finite, or not of length one, reaches a file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import open_dataset
from pipeline.model.engine import Engine
from pipeline.model.outputs import Embeddings
from tests.jobs import embed, write_parquet, write_spec

_BFLOAT16 = ("--set", "model.dtype=bfloat16")


def _break(monkeypatch: pytest.MonkeyPatch, *, exact_too: bool) -> None:
    """Let the longest item of every call have a NaN, in bfloat16 or whatever it is computed in."""
    original = Engine.embed

    def broken(self: Engine, *arguments: object, **settings: object) -> Embeddings:
        found = original(self, *arguments, **settings)  # type: ignore[arg-type]
        if exact_too or self.dtype == torch.bfloat16:
            at = int(np.argmax(found.n_tokens))
            for single in found.singles.values():
                single[at, 3] = np.nan
        return found

    monkeypatch.setattr(Engine, "embed", broken)


@pytest.mark.usefixtures("without_canaries")
@pytest.mark.fault("compute.non_finite")
def test_an_item_that_fails_in_sixteen_bits_is_embedded_in_float32(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))
    assert (
        embed(spec, "--set", "model.dtype=float32", "--set", f"output.uri={tmp_path / 'f32'}") == 0
    )
    exact = open_dataset(str(tmp_path / "f32")).to_table().sort_by("id")
    _break(monkeypatch, exact_too=False)
    assert embed(spec, *_BFLOAT16) == 0
    table = open_dataset(str(tmp_path / "out")).to_table().sort_by("id")
    vectors, wanted = (np.stack(t["embedding"].to_numpy()) for t in (table, exact))
    assert np.isfinite(vectors).all()
    same = np.abs(vectors - wanted).max(axis=1) < 1e-6
    assert same.tolist() == [False, False, True, False]
    assert np.abs(vectors - wanted).max() < 2e-2


@pytest.mark.usefixtures("without_canaries")
@pytest.mark.fault("compute.non_finite")
def test_an_item_that_fails_in_float32_too_is_set_aside_and_its_neighbours_are_not(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))
    _break(monkeypatch, exact_too=True)
    assert embed(spec, *_BFLOAT16) == 0
    dataset = open_dataset(str(tmp_path / "out"))
    aside = dataset.quarantine().to_pylist()
    assert {row["reason"] for row in aside} == {"non_finite"}
    assert {row["stage"] for row in aside} == {"embed"}
    assert [row["id"] for row in aside] == [12]
    assert dataset.count() == 3
    assert np.isfinite(np.stack(dataset.to_table()["embedding"].to_numpy())).all()
