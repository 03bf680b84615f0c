"""Rows that kill their process are found one by one, and every other row is kept."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import CheckpointError, Reason
from pipeline.spec_file import load_spec
from pipeline.stages.isolated import Process, Work, survivors
from pipeline.stages.opened import open_model
from pipeline.stages.plan import plan_work
from pipeline.stages.recipe import Recipe
from tests.jobs import write_parquet, write_spec

_POISON = Path(__file__).parent.parent / "faults" / "poison"


@pytest.fixture
def recipe(tmp_path: Path, tiny_checkpoint: Path) -> Recipe:
    texts = ["well", "POISON in it", "also well", "a word after another " * 40]
    source = write_parquet(tmp_path / "docs.parquet", body=texts)
    spec = load_spec(write_spec(tmp_path, tiny_checkpoint, source))
    plan = plan_work(spec, 602112)
    return Recipe.of(spec, open_model(spec.model.path), plan, "float32")


def _read(recipe: Recipe, tmp_path: Path) -> pa.Table:
    units = plan_work(load_spec(tmp_path / "job.yaml"), 602112).units
    ((_, rows),) = recipe.read(units)
    return rows


@pytest.mark.fault("image.decoder_crash", "compute.poison")
def test_both_stages_run_in_processes_that_may_die(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{_POISON}{os.pathsep}{Path.cwd()}")
    moves: list[None] = []
    rows = survivors(
        Work(recipe=recipe),
        _read(recipe, tmp_path),
        Reason.DECODER_CRASH,
        lambda: moves.append(None),
    )
    # 4 rows, 2, 1 and 1 again with its reason, 1, 2
    assert len(moves) == 6
    assert rows["reason"].to_pylist() == [None, "decoder_crash", None, None]
    embed = Work(recipe=recipe, adapter="retrieval", device="cpu")
    items = survivors(embed, rows, Reason.WORKER_CRASH, lambda: None)
    assert items["reason"].to_pylist() == [None, "decoder_crash", None, "worker_crash"]
    assert items["stage"].to_pylist() == [None, "prepare", None, "embed"]
    assert "died of it, alone too (exit code -9)" in items["message"].to_pylist()[3]
    assert items["embedding"].is_null().to_pylist() == [False, True, False, True]


def test_what_a_stage_raises_in_its_process_is_raised_here(recipe: Recipe, tmp_path: Path) -> None:
    other = replace(recipe.model, hashes=dict.fromkeys(recipe.model.hashes, "0" * 64))
    wrong = replace(recipe, model=other)
    with Process(Work(recipe=wrong)) as prepare, pytest.raises(CheckpointError):
        prepare(_read(recipe, tmp_path))
