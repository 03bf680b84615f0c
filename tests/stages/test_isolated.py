"""Rows that kill their process are found one by one, and every other row is kept."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CheckpointError, Reason
from pipeline.spec_file import load_spec
from pipeline.stages.flow import Recipe, open_model
from pipeline.stages.isolated import Died, Process, Work, bisect
from pipeline.stages.plan import plan_work
from tests.jobs import write_parquet, write_spec

_POISON = Path(__file__).parent.parent / "faults" / "poison"


def _rows(count: int) -> pa.Table:
    none = pa.nulls(count, pa.string())
    return pa.table({"row": range(count), "reason": none, "stage": none, "message": none})


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
@pytest.mark.fault("image.decoder_crash", "compute.poison")
def test_exactly_the_deadly_rows_are_set_aside_and_the_order_is_kept(
    case: tuple[int, set[int]],
) -> None:
    count, deadly = case
    deaths = 0

    def call(table: pa.Table) -> pa.Table:
        nonlocal deaths
        well = table.filter(pa.compute.is_null(table["reason"]))
        if deadly & set(well["row"].to_pylist()):
            deaths += 1
            raise Died("signal 9")
        return table

    found = bisect(call, _rows(count), "prepare", Reason.DECODER_CRASH)
    assert found["row"].to_pylist() == list(range(count))
    aside = found.filter(pa.compute.is_valid(found["reason"])).to_pylist()
    assert {row["row"] for row in aside} == deadly
    assert {row["reason"] for row in aside} <= {"decoder_crash"}
    # one for each level of halves that the row is in
    assert deaths <= len(deadly) * (count.bit_length() + 1)


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
    with Process(Work(recipe=recipe)) as prepare:
        rows = bisect(prepare, _read(recipe, tmp_path), "prepare", Reason.DECODER_CRASH)
    assert rows["reason"].to_pylist() == [None, "decoder_crash", None, None]
    with Process(Work(recipe=recipe, adapter="retrieval", device="cpu")) as embed:
        items = bisect(embed, rows, "embed", Reason.WORKER_CRASH)
    assert items["reason"].to_pylist() == [None, "decoder_crash", None, "worker_crash"]
    assert items["stage"].to_pylist() == [None, "prepare", None, "embed"]
    assert "died of it, alone too (exit code -9)" in items["message"].to_pylist()[3]
    assert items["embedding"].is_null().to_pylist() == [False, True, False, True]


def test_what_a_stage_raises_in_its_process_is_raised_here(recipe: Recipe, tmp_path: Path) -> None:
    wrong = replace(recipe, checkpoint_hashes=dict.fromkeys(recipe.checkpoint_hashes, "0" * 64))
    with Process(Work(recipe=wrong)) as prepare, pytest.raises(CheckpointError):
        prepare(_read(recipe, tmp_path))
