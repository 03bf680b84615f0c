"""Rows that a stage fails of are found one by one, and every other row is kept."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import credentials, open_dataset
from pipeline.errors import DeviceLost, Reason, RunError
from pipeline.model.engine import Engine
from pipeline.model.outputs import Embeddings
from pipeline.model.processor import PreparedItem, Processor
from pipeline.stages.bisect import bisect
from pipeline.tasks import Task
from tests.jobs import TEXTS, embed, write_parquet, write_spec


def _rows(count: int) -> pa.Table:
    none = pa.nulls(count, pa.string())
    return pa.table({"row": range(count), "reason": none, "stage": none, "message": none})


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
@pytest.mark.fault("image.decoder_crash", "compute.poison")
def test_exactly_the_guilty_rows_are_set_aside_and_the_order_is_kept(
    case: tuple[int, set[int]],
) -> None:
    count, guilty = case
    failures = 0

    def call(table: pa.Table) -> pa.Table:
        nonlocal failures
        well = table.filter(pa.compute.is_null(table["reason"]))
        if guilty & set(well["row"].to_pylist()):
            failures += 1
            raise RuntimeError("signal 9")
        return table

    found = bisect(call, _rows(count), "prepare", lambda _: (Reason.DECODER_CRASH, "it died"))
    assert found["row"].to_pylist() == list(range(count))
    aside = found.filter(pa.compute.is_valid(found["reason"])).to_pylist()
    assert {row["row"] for row in aside} == guilty
    assert {row["reason"] for row in aside} <= {"decoder_crash"}
    # one for each level of halves that the row is in
    assert failures <= len(guilty) * (count.bit_length() + 1)


def test_an_error_that_is_no_rows_fault_is_raised_at_once() -> None:
    calls = 0

    def call(table: pa.Table) -> pa.Table:
        nonlocal calls
        calls += 1
        raise RunError("the store is gone")

    with pytest.raises(RunError, match="the store is gone"):
        bisect(call, _rows(64), "embed", lambda _: (Reason.UNEXPECTED_ERROR, ""))
    assert calls == 1


def test_a_message_that_is_set_aside_is_short_and_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credentials, "_known", {"canary"})

    def call(table: pa.Table) -> pa.Table:
        if table["reason"].null_count:
            raise RuntimeError("signed with a canary" + "!" * 1000)
        return table

    found = bisect(call, _rows(1), "embed", lambda e: (Reason.UNEXPECTED_ERROR, str(e)))
    (message,) = found["message"].to_pylist()
    assert message.startswith("signed with a ***!!!")
    assert len(message) <= 300


def _fail_in_prepare(monkeypatch: pytest.MonkeyPatch, always: bool) -> None:
    original = Processor.text

    def broken(self: Processor, text: str, task: Task) -> PreparedItem:
        if always or text == TEXTS[1]:
            raise IndexError("list index out of range")
        return original(self, text, task)

    monkeypatch.setattr(Processor, "text", broken)


def _fail_in_embed(monkeypatch: pytest.MonkeyPatch, always: bool) -> None:
    original = Engine.embed

    def broken(self: Engine, items: list[PreparedItem], **settings: object) -> Embeddings:
        if always or any(len(item.token_ids) == 16 for item in items):
            raise RuntimeError("no kernel for this shape")
        return original(self, items, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "embed", broken)


_STAGES = {
    "prepare": (_fail_in_prepare, 11, "IndexError: list index out of range"),
    "embed": (_fail_in_embed, 10, "RuntimeError: no kernel for this shape"),
}


@pytest.mark.parametrize("stage", _STAGES)
@pytest.mark.fault("compute.stage_fails")
def test_a_row_of_which_a_stage_fails_is_set_aside_and_its_neighbours_are_embedded(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))
    assert embed(spec, "--set", f"output.uri={tmp_path / 'well'}") == 0
    well = open_dataset(str(tmp_path / "well")).to_table().sort_by("id").to_pylist()
    fail, guilty, message = _STAGES[stage]
    fail(monkeypatch, always=False)
    assert embed(spec) == 0
    dataset = open_dataset(str(tmp_path / "out"))
    (aside,) = dataset.quarantine().to_pylist()
    assert (aside["id"], aside["reason"], aside["stage"]) == (guilty, "unexpected_error", stage)
    assert aside["message"] == message
    there = dataset.to_table().sort_by("id").to_pylist()
    rest = [row for row in well if row["id"] != guilty]
    assert [row["id"] for row in there] == [row["id"] for row in rest]
    for row, expected in zip(there, rest, strict=True):
        assert np.abs(np.subtract(row["embedding"], expected["embedding"])).max() < 1e-5


@pytest.mark.parametrize("stage", _STAGES)
@pytest.mark.fault("compute.stage_fails")
def test_a_stage_that_can_do_nothing_fails_the_run_and_blames_no_row(
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))
    fail, _, message = _STAGES[stage]
    fail(monkeypatch, always=True)
    assert embed(spec) == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("work/*/*"))


@pytest.mark.fault("compute.device_lost")
def test_a_lost_device_ends_the_run_and_blames_no_row(
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lost(self: Engine, *arguments: object, **settings: object) -> Embeddings:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Engine, "embed", lost)
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))
    assert embed(spec) == 1
    assert "the device fails whatever it is asked: CUDA error" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("work/*/*"))
    assert issubclass(DeviceLost, RunError)
