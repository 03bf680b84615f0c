"""The stages joined: each row prepared once, a unit whole on its way, failures told in full."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import (
    CheckpointError,
    Reason,
    RowError,
    RunError,
    SourceError,
    UnexpectedError,
)
from pipeline.model.processor import Processor
from pipeline.spec_file import load_spec
from pipeline.stages.board import Board, tellable
from pipeline.stages.flow import opened_together, run_in_process
from pipeline.stages.opened import open_model
from pipeline.stages.parcel import PARCEL, open_parcel, pack_parcel
from pipeline.stages.plan import plan_work
from pipeline.stages.recipe import Recipe
from pipeline.work import Receipt
from tests.end_to_end.small_corpus import PAIRED, REASONS, ROWS, write_corpus, write_spec


@pytest.fixture(scope="module")
def spec_path(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A spec over a corpus of all formats and all adapters."""
    root = tmp_path_factory.mktemp("flow")
    write_corpus(root / "corpus")
    return write_spec(root / "spec.yaml", root / "corpus", tiny_checkpoint, root / "out")


def test_every_item_is_prepared_once_whatever_the_number_of_adapters(
    spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"text": 0, "image": 0}

    def counted(name: str) -> None:
        original = getattr(Processor, name)

        def count(self: Processor, *arguments: object) -> object:
            calls[name] += 1
            return original(self, *arguments)

        monkeypatch.setattr(Processor, name, count)

    counted("text")
    counted("image")
    spec = load_spec(spec_path)
    plan = plan_work(spec, 602112)
    assert len(plan.rows_by_adapter) == 3
    recipe = Recipe.of(spec, open_model(spec.model.path), plan, "float32")
    receipts = run_in_process(recipe, plan.units, watch=lambda tallies: None, stall=60)
    never_prepared = sum(
        REASONS[name] for name in ("null_input", "unknown_task", "malformed_record")
    )
    canaries = [recipe.canaries(adapter) for adapter in plan.rows_by_adapter]
    # counted once by the run, and once by the line above
    twice = 2 * sum(map(len, canaries))
    assert sum(calls.values()) - twice == ROWS + PAIRED - never_prepared
    assert sum(receipt.rows for receipt in receipts) == plan.rows == ROWS


def test_a_recipe_and_its_units_travel_to_workers_small(spec_path: Path) -> None:
    spec = load_spec(spec_path)
    plan = plan_work(spec, 602112)
    recipe = Recipe.of(spec, open_model(spec.model.path), plan, "float32")
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert len(pickle.dumps(recipe)) < 16_384
    for group in opened_together(plan.units):
        assert len({(unit.segment, unit.adapter) for unit in group}) == 1
        assert len(pickle.dumps(group)) < 16_384


_HALF = st.sampled_from([0.0, -1.5, 65504.0, 6e-8])
_TABLES = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.none() | st.text(max_size=5),
            "pixels": st.none() | st.binary(max_size=9),
            "half": st.none() | st.lists(_HALF, min_size=2, max_size=2),
            "multi": st.none() | st.lists(st.lists(_HALF, min_size=3, max_size=3)),
        }
    ),
    max_size=4,
)
_SCHEMA = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("pixels", pa.large_binary()),
        pa.field("half", pa.list_(pa.float16(), 2)),
        pa.field("multi", pa.list_(pa.list_(pa.float16(), 3))),
    ],
    metadata={"made": "here"},
)


@given(rows=_TABLES)
@pytest.mark.fault("compute.ragged")
def test_a_parcel_holds_a_table_of_any_type_as_it_is(rows: list[dict[str, object]]) -> None:
    table = pa.Table.from_pylist(rows, _SCHEMA)
    parcel = pack_parcel("unit", "code", table)
    assert (parcel.schema, parcel.num_rows) == (PARCEL, 1)
    unit, adapter, found = open_parcel(pa.concat_tables([parcel, parcel]).slice(1, 1))
    assert (unit, adapter) == ("unit", "code")
    assert found.schema.equals(_SCHEMA, check_metadata=True)
    assert found.equals(table)


@pytest.mark.parametrize(
    "error", [SourceError("a sentence"), RowError(Reason.NULL_ID, "the id is null")]
)
def test_our_own_errors_travel_between_processes_whole(error: Exception) -> None:
    told = pickle.loads(pickle.dumps(tellable(error)))
    assert type(told) is type(error)
    assert str(told) == str(error)


def test_a_foreign_error_travels_with_its_traceback() -> None:
    class Unpicklable(Exception):
        def __reduce__(self) -> str:
            raise TypeError("cannot be pickled")

    try:
        raise Unpicklable("out of luck")
    except Unpicklable as error:
        told = pickle.loads(pickle.dumps(tellable(error)))
    assert isinstance(told, UnexpectedError)
    assert str(told) == "a worker failed: Unpicklable: out of luck"
    assert "test_flow.py" in told.__notes__[0]


def test_the_board_keeps_the_first_failure_and_adds_up_receipts() -> None:
    board = Board()
    assert board.failure() is None
    board.fail(SourceError("first"))
    board.fail(SourceError("second"))
    assert str(board.failure()) == "first"
    receipt = Receipt(
        unit="u",
        adapter="code",
        rows=3,
        items=4,
        embedded={"text": 2, "image": 1},
        quarantined={"null_id": 1},
        tokens=50,
        data=None,
        quarantine=None,
    )
    board.add(receipt)
    board.add(replace(receipt, unit="v"))
    # written again, since a worker was lost before it could say so
    board.add(receipt)
    (tally,) = board.read().tallies.values()
    assert (tally.units, tally.rows, tally.items, tally.tokens) == (2, 6, 8, 100)
    assert tally.embedded == {"text": 4, "image": 2}


@pytest.mark.parametrize("name", ["tokenizer.json", "model-00001-of-00003.safetensors"])
@pytest.mark.fault("compute.model_changed")
def test_a_worker_refuses_a_checkpoint_that_is_not_the_planned_one(
    tmp_path: Path, tiny_checkpoint: Path, name: str
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    write_corpus(tmp_path / "corpus")
    path = write_spec(tmp_path / "spec.yaml", tmp_path / "corpus", checkpoint, tmp_path / "out")
    spec = load_spec(path)
    recipe = Recipe.of(spec, open_model(spec.model.path), plan_work(spec, 602112), "float32")
    content = bytearray((checkpoint / name).read_bytes())
    content[-3] ^= 1
    (checkpoint / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} on this host is not the file"):
        recipe.embed("code", "cpu")
    if name.endswith(".json"):
        with pytest.raises(CheckpointError, match=f"{name} on this host is not the file"):
            recipe.prepare()


@pytest.mark.fault("compute.version_skew")
def test_a_worker_with_another_version_refuses_the_recipe(
    spec_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec(spec_path)
    recipe = Recipe.of(spec, open_model(spec.model.path), plan_work(spec, 602112), "float32")
    recipe.prepare()
    monkeypatch.setattr("pipeline.stages.recipe._software", lambda: "9.9")
    for stage in (recipe.prepare, recipe.sink, lambda: recipe.embed("code", "cpu")):
        with pytest.raises(RunError, match=r"a worker has Nightjar 9\.9, and the driver"):
            stage()
