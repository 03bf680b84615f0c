"""Every comparison runs at tiny size, its programs agree, and its record is complete.

No time is judged here: at these sizes the numbers mean nothing.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import (
    adapters,
    against_reference,
    against_sentence_transformers,
    backfill,
    pipeline_cost,
    search,
)
from benchmarks.peers import ray_program
from benchmarks.peers.merged_decoder import write_merged
from benchmarks.record import Comparison
from benchmarks.setting import Options, checkpoint, demand_agreement
from benchmarks.timing import Timing, interleave, ratios

Run = Callable[..., dict[str, Any]]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


def _common(cache: Path, results: Path) -> list[str]:
    return ["--quick", "--threads", "1", "--cache", str(cache), "--results", str(results)]


@pytest.fixture
def run(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A script's record; the threads and the environment are put back afterwards."""
    # so that what the script sets is undone
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    threads = torch.get_num_threads()

    def record(main: Callable[[list[str]], Path], *more: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(main([*_common(cache, tmp_path), *more]).read_text())
        return found

    yield record
    torch.set_num_threads(threads)


@pytest.fixture
def run_apart(cache: Path, tmp_path: Path) -> Run:
    """The record of a script that starts a Ray; one process can know only one cluster well."""

    def record(name: str) -> dict[str, Any]:
        command = [sys.executable, "-m", f"benchmarks.{name}", *_common(cache, tmp_path)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (file,) = tmp_path.glob("*.json")
        assert f"written: {os.path.relpath(file, ROOT)}" in done.stdout
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    return record


def _demand_complete(record: dict[str, Any], name: str, compared: int) -> None:
    _demand_described(record, name)
    assert len(record["comparisons"]) == compared
    for comparison in record["comparisons"]:
        timings, baseline = comparison["timings"], comparison["baseline"]
        assert all(
            run.keys() == {"wall", "cpu", "others"} for runs in timings.values() for run in runs
        )
        assert comparison["ratios"].keys() == timings.keys() - {baseline}
        assert comparison["work"]


def _demand_described(record: dict[str, Any], name: str) -> None:
    assert record["name"] == name
    assert record["quick"] is True
    assert record["command"].startswith(f"python -m benchmarks.{name} --threads 1")
    assert record["config"]["geometry"]["hidden"] == 64
    hardware = {"cpu", "instructions", "bfloat16", "cores", "memory_gib", "load_average"}
    assert record["hardware"].keys() == hardware
    assert {"python", "torch", "ray", "peft", "sentence-transformers"} <= record["versions"].keys()
    assert record["git"].keys() == {"commit", "changed"}
    assert str(Path.home()) not in json.dumps(record)
    assert "/tmp" not in json.dumps(record)


def _demand_agreement(record: dict[str, Any], bound: float) -> None:
    for comparison in record["comparisons"]:
        assert comparison["differences"].keys() == comparison["ratios"].keys()
        for outputs in comparison["differences"].values():
            assert outputs
            assert max(outputs.values()) <= bound


def test_the_reference_computes_our_vectors(run: Run) -> None:
    record = run(against_reference.main)
    _demand_complete(record, "against_reference", compared=4)
    _demand_agreement(record, 5e-6)
    assert {
        output for c in record["comparisons"] for d in c["differences"].values() for output in d
    } == {
        "single",
        "multi",
    }
    texts = record["comparisons"][0]["work"]
    assert texts["padded_tokens"] > texts["tokens"]


def test_the_reference_runs_in_bfloat16(run: Run) -> None:
    record = run(against_reference.main, "--dtype", "bfloat16")
    assert record["config"]["dtype"] == "bfloat16"
    assert record["comparisons"][0]["differences"][against_reference.REFERENCE]["single"] > 1e-5


def test_sentence_transformers_computes_our_vectors(run: Run) -> None:
    record = run(against_sentence_transformers.main)
    _demand_complete(record, "against_sentence_transformers", compared=1)
    _demand_agreement(record, 5e-6)
    assert record["config"]["best_batch"] == 32


def test_adapters_merged_and_switched_give_the_same_vectors(run: Run) -> None:
    record = run(adapters.main)
    _demand_complete(record, "adapters", compared=2)
    _demand_agreement(record, 5e-6)


def test_the_pipeline_gives_the_vectors_of_the_bare_loop(run: Run) -> None:
    record = run(pipeline_cost.main, "--no-ray")
    _demand_complete(record, "pipeline_cost", compared=1)
    _demand_agreement(record, 1e-6)
    assert record["comparisons"][0]["work"]["rows"] == 64


@pytest.mark.long
@pytest.mark.ray
def test_the_obvious_ray_program_computes_our_vectors(run_apart: Run) -> None:
    record = run_apart("against_ray_program")
    _demand_complete(record, "against_ray_program", compared=1)
    _demand_agreement(record, 5e-4)


@pytest.mark.long
@pytest.mark.ray
def test_every_format_gives_back_the_multivectors(run_apart: Run) -> None:
    record = run_apart("multivector_files")
    _demand_complete(record, "multivector_files", compared=2)
    assert record["config"]["megabytes_per_cpu_second"].keys() == {"writing", "reading"}


@pytest.mark.long
@pytest.mark.ray
def test_a_night_is_planned_and_signs_are_compared_in_both_ways(run_apart: Run) -> None:
    # it refuses to report on a comparison that does not find what has changed
    record = run_apart("comparison")
    _demand_described(record, "comparison")
    assert len(record["timings"]) == 4
    for ways in record["timings"].values():
        assert ways.keys() == {"in one process", "on Ray"}
        assert all(run["wall"] > 0 for runs in ways.values() for run in runs)
    changed = record["found"]["planning, one row in ten has another text"]
    assert (changed["changed"], changed["carried"]) == (200, 1800)
    assert record["a_billion_rows"]["bytes shuffled"] > 100e9
    assert record["driver_bytes_per_row"].keys() > {"there", "changed, beyond that"}


@pytest.mark.slow
def test_bare_loops_leave_all_rows_in_their_stores(run: Run) -> None:
    # it refuses to compare with a loop that left some out
    record = run(backfill.main, "--stores", "lancedb", "pgvector")
    _demand_complete(record, "backfill", compared=2)
    assert record["config"]["best_batch"].keys() == {"lancedb", "pgvector"}


def test_a_search_finds_what_numpy_finds(run: Run) -> None:
    # it refuses to compare searches that find different things
    record = run(search.main)
    _demand_complete(record, "search", compared=1)
    assert record["config"]["first_search_seconds"] > 0


def test_both_actors_of_the_ray_program_agree(cache: Path) -> None:
    options = Options(
        threads=torch.get_num_threads(), dtype="float32", seed=0, repeats=1, quick=True, cache=cache
    )
    merged = write_merged(checkpoint(options), "retrieval", torch.float32)
    arguments = (str(merged), "float32", options.threads, False)
    batch = {"id": np.arange(3), "text": np.array(["an owl", "b", "c d e f g h"], dtype=object)}
    padded, by_length = (
        actor(*arguments)(batch) for actor in (ray_program.Padded, ray_program.Sorted)
    )
    np.testing.assert_allclose(padded["embedding"], by_length["embedding"], rtol=0, atol=1e-6)
    assert padded["id"].tolist() == by_length["id"].tolist() == [0, 1, 2]


def test_programs_take_turns_and_each_turn_starts_with_another() -> None:
    calls: list[str] = []
    programs = {name: lambda name=name: calls.append(name) for name in "abc"}
    timings = interleave(programs, 3)
    assert "".join(calls) == "abcbcacab"
    assert [len(runs) for runs in timings.values()] == [3, 3, 3]


def test_a_program_shorter_than_the_cpu_clocks_tick_still_has_a_ratio() -> None:
    timings = interleave({"ours": lambda: None, "theirs": lambda: None}, 1, lambda: 0.0)
    assert ratios(timings, "ours")["theirs"].cpu == 1


def test_a_ratio_is_the_median_of_the_turns() -> None:
    def runs(*walls: float) -> list[Timing]:
        return [Timing(wall=wall, cpu=2 * wall, others=0) for wall in walls]

    timings = {"ours": runs(1, 2, 4), "theirs": runs(3, 4, 4)}
    found = ratios(timings, "ours")
    assert found.keys() == {"theirs"}
    assert (found["theirs"].wall, found["theirs"].cpu) == (2, 2)
    comparison = Comparison(name="x", baseline="ours", timings=timings, work={"items": 1})
    assert comparison.as_json()["ratios"] == {"theirs": {"wall": 2, "cpu": 2}}


@pytest.mark.parametrize("value", [2e-5, float("nan")])
def test_programs_that_compute_something_else_are_not_compared(value: float) -> None:
    demand_agreement({"theirs": {"single": 1e-6}}, "float32")
    with pytest.raises(SystemExit, match="theirs: its single vectors differ from ours"):
        demand_agreement({"theirs": {"single": value}}, "float32")
