"""An item that takes too much CPU or memory is set aside, and its neighbours are prepared."""

import io
import os
import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import open_dataset
from pipeline.errors import Reason
from pipeline.model.processor import PreparedItem, Processor
from pipeline.spec_file import load_spec
from pipeline.stages.bounds import Bounds
from pipeline.stages.isolated import Work, survivors
from pipeline.stages.opened import open_model
from pipeline.stages.plan import plan_work
from pipeline.stages.recipe import Recipe
from pipeline.tasks import Task
from tests.end_to_end.clusters import nightjar
from tests.jobs import TEXTS, embed, png, write_parquet, write_spec

_POISON = Path(__file__).parent.parent / "faults" / "poison"
_MEGABYTE = 1 << 20


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(limit) for limit in (resource.RLIMIT_CPU, resource.RLIMIT_DATA)]


def test_limits_are_lowered_inside_and_restored_outside() -> None:
    before = _limits()
    with Bounds(cpu_seconds=3, memory=_MEGABYTE).held():
        inside = _limits()
    assert _limits() == before
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    assert used + 2 < inside[0][0] < used + 5
    assert [hard for _, hard in inside] == [hard for _, hard in before]
    with pytest.raises(ZeroDivisionError), Bounds(cpu_seconds=3, memory=_MEGABYTE).held():
        _ = 1 / 0
    assert _limits() == before
    with Bounds().held():
        assert _limits() == before


def test_a_limit_that_is_lower_already_stays() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, hard))
    try:
        with Bounds(memory=1 << 40).held():
            assert resource.getrlimit(resource.RLIMIT_DATA) == (8 << 30, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _fits(memory: int | None, megabytes: int) -> bool:
    with Bounds(memory=memory).held():
        try:
            bytearray(megabytes * _MEGABYTE)
        except MemoryError:
            return False
    return True


def test_memory_beyond_the_bound_is_refused_and_below_it_is_not() -> None:
    # the kernel counts what it is asked for: this process may have kept enough of other tests'
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        bound = 200 * _MEGABYTE
        assert fresh.submit(_fits, bound, 100).result()
        assert not fresh.submit(_fits, bound, 300).result()
        assert fresh.submit(_fits, None, 300).result()


@pytest.mark.slow
@pytest.mark.fault("image.slow", "image.hungry")
def test_a_decoder_that_never_ends_and_one_that_takes_all_memory_cost_their_rows(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{_POISON}{os.pathsep}{Path.cwd()}")
    texts = ["well", "ENDLESS", "also well", "HUNGRY"]
    source = write_parquet(tmp_path / "docs.parquet", body=texts)
    spec = load_spec(
        write_spec(tmp_path, tiny_checkpoint, source),
        ["limits.decode_seconds=1", "limits.decode_memory=1000000000"],
    )
    plan = plan_work(spec, 602112)
    recipe = Recipe.of(spec, open_model(spec.model.path), plan, "float32")
    ((_, rows),) = recipe.read(plan.units)
    items = survivors(Work(recipe=recipe), rows, Reason.DECODER_CRASH, lambda: None)
    assert items["reason"].to_pylist() == [None, "decoder_crash", None, "oom"]
    messages = items["message"].to_pylist()
    assert "died of it, alone too (exit code -24)" in messages[1], "24 is SIGXCPU"
    assert "limits.decode_memory" in messages[3]


@pytest.mark.fault("image.hungry")
def test_a_real_image_that_needs_more_than_the_bound_is_set_aside_without_ray_too(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    large = io.BytesIO()
    Image.new("1", (4000, 4000)).save(large, "PNG")
    table = pa.table({"id": [1, 2, 3], "image": [png(1), large.getvalue(), png(2)]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = {
        "uri": str(tmp_path / "a.parquet"),
        "format": "parquet",
        "id": "id",
        "image": "image",
        "task": "retrieval.passage",
    }
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    # in a process of its own, as above
    bound = f"limits.decode_memory={32 * _MEGABYTE}"
    assert nightjar("embed", spec, "--address", "none", "--set", bound).code == 0
    dataset = open_dataset(str(tmp_path / "out"))
    assert dataset.to_table()["id"].to_pylist() == [1, 3]
    (aside,) = dataset.quarantine().to_pylist()
    assert (aside["id"], aside["reason"], aside["stage"]) == (2, "oom", "prepare")
    assert embed(spec, "--set", f"output.uri={tmp_path / 'again'}") == 0
    assert open_dataset(str(tmp_path / "again")).count() == 3


def test_a_users_own_process_is_never_killed_for_its_cpu(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = Processor.text, {}

    def text(self: Processor, content: str, task: Task) -> PreparedItem:
        seen[content] = _limits()
        return original(self, content, task)

    monkeypatch.setattr(Processor, "text", text)
    before = _limits()
    assert embed(write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "a.parquet"))) == 0
    # the canaries are prepared as well, by the device's side
    for cpu, data in map(seen.__getitem__, TEXTS):
        assert cpu == before[0]
        assert data != before[1], "its memory is bounded"
    assert _limits() == before
