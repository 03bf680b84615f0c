"""`nightjar plan`: what it says is what a night then does, and it writes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from pipeline.benchmark.forecast import Speed, read_speed
from pipeline.dataset import open_dataset
from pipeline.errors import SpecError
from tests.jobs import killed_after, png, write_images, write_parquet, write_spec

Captured = pytest.CaptureFixture[str]
Plan = Callable[..., dict[str, Any]]


@pytest.fixture
def spec(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """Texts and images."""
    source = [
        write_parquet(tmp_path / "a.parquet", doc=list("wxyz")),
        write_images(tmp_path / "pages"),
    ]
    return write_spec(tmp_path, tiny_checkpoint, source)


@pytest.fixture
def plan(spec: Path, capsys: Captured) -> Plan:
    def run(*more: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["plan", str(spec), "--json", *more]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def _night(spec: Path, capsys: Captured) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["nightly", str(spec), "--address", "none", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _vector_bytes(spec: Path) -> int:
    table = open_dataset(str(spec.parent / "out")).to_table(["embedding", "multivector"])
    flat = table["multivector"].combine_chunks().flatten().flatten()
    return table.num_rows * 32 * 4 + len(flat) * 4


def test_what_it_says_of_a_first_night_comes_true(plan: Plan, spec: Path, capsys: Captured) -> None:
    said = plan()
    assert not (spec.parent / "out").exists(), "nothing is written"
    done = _night(spec, capsys)
    assert said["found"] == done["found"]
    assert said["embedded"] == done["embedded"]
    assert sum(said["tokens"].values()) == done["tokens"]
    assert said["aside"] == sum(done["quarantined"].values())
    assert said["files"] == done["files"]
    assert said["bytes"] == _vector_bytes(spec)
    assert said["patches"] > 0
    assert (said["sampled_rows"], said["is_new_generation"]) == (None, False)


def test_what_it_says_of_a_later_night_comes_true_and_nothing_is_written(
    plan: Plan, spec: Path, capsys: Captured
) -> None:
    _night(spec, capsys)
    out = spec.parent / "out"
    nothing = plan()
    assert (nothing["embedded"], nothing["files"]) == ({}, 0)
    write_parquet(spec.parent / "a.parquet", doc=list("wxyz"), body=["one", "two", None, "a"])
    (spec.parent / "pages" / "more.png").write_bytes(png(9))
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    said = plan()
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    done = _night(spec, capsys)
    assert said["found"] == done["found"]
    assert said["embedded"] == done["embedded"] == {"text": 2, "image": 1}
    assert sum(said["tokens"].values()) == done["tokens"]


def test_another_model_is_told_as_a_new_generation(
    plan: Plan, spec: Path, capsys: Captured
) -> None:
    _night(spec, capsys)
    said = plan("--set", "model.max_length=9")
    assert said["is_new_generation"]
    assert said["embedded"]["text"] == 4
    assert main(["plan", str(spec), "--set", "model.max_length=9"]) == 0
    assert "is new: nothing of another is carried" in capsys.readouterr().out


def test_what_a_run_has_done_that_was_cut_off_is_not_counted_again(plan: Plan, spec: Path) -> None:
    sliced = ("--set", "compute.unit_rows=2")
    before = plan(*sliced)
    killed_after(1, "nightly", str(spec), "--address", "none", *sliced)
    said = plan(*sliced)
    assert (before["done_rows"], said["done_rows"]) == (0, 2)
    assert said["files"] == before["files"] - 1


def test_a_sample_is_called_one(plan: Plan, spec: Path, capsys: Captured) -> None:
    sliced = ("--set", "compute.unit_rows=1", "--sample", "3")
    said = plan(*sliced)
    exact = plan("--set", "compute.unit_rows=1")
    assert exact["sampled_rows"] is None
    assert 0 < said["sampled_rows"] < exact["rows"]
    assert said["rows"] == exact["rows"]
    assert main(["plan", str(spec), *sliced]) == 0
    assert f"from a sample of {said['sampled_rows']} rows" in capsys.readouterr().out


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A device of 100 texts of 10 tokens, 10 of 1,000, and 2 pages of 800, each second."""
    mixes = [
        {"tokens_per_second": 1e3, "items_per_second": 100.0, "patches_per_second": 0.0},
        {"tokens_per_second": 1e4, "items_per_second": 10.0, "patches_per_second": 0.0},
        {"tokens_per_second": 1.6e3, "items_per_second": 2.0, "patches_per_second": 7e3},
    ]
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps({"device": "a device", "at": "now", "mixes": mixes}))
    return path


def test_time_and_cost_follow_from_the_last_benchmark(
    plan: Plan, spec: Path, benchmark: Path, capsys: Captured
) -> None:
    said = plan("--benchmark", str(benchmark), "--price", "7200")
    seconds = said["tokens"]["text"] / 1e3 + said["tokens"]["image"] / 1.6e3
    assert said["device_hours"] == pytest.approx(seconds / 3600)
    assert said["cost"] == pytest.approx(2 * seconds)
    assert said["device"] == "a device"
    assert main(["plan", str(spec), "--benchmark", str(benchmark), "--price", "1"]) == 0
    assert "hours of one a device, which cost" in capsys.readouterr().out


def test_a_benchmark_that_was_typed_must_be_there_and_the_default_one_need_not(
    spec: Path, benchmark: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(spec.parent)
    assert main(["plan", str(spec)]) == 0
    assert "unknown: no benchmark.json" in capsys.readouterr().out
    assert main(["plan", str(spec), "--benchmark", "mistyped.json"]) == 2
    assert capsys.readouterr().err == (
        "nightjar: --benchmark: 'mistyped.json' is not there; name the file that `nightjar "
        "benchmark` wrote, or leave the option out\n"
    )
    Path("benchmark").mkdir()
    benchmark.rename("benchmark/benchmark.json")
    assert main(["plan", str(spec)]) == 0
    assert "hours of one a device" in capsys.readouterr().out


def test_the_mix_of_the_most_similar_size_counts(benchmark: Path) -> None:
    speed = read_speed(benchmark)
    assert speed.seconds(False, 10, 100) == pytest.approx(100 / 1e3)
    assert speed.seconds(False, 10, 20_000) == pytest.approx(20_000 / 1e4)
    assert speed.seconds(True, 1, 10) == pytest.approx(10 / 1.6e3)
    assert speed.seconds(True, 0, 0) == 0
    assert Speed(device="d", at="", mixes=()).seconds(True, 1, 10) == float("inf")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"mixes": [{}], "device": "d", "at": "n"}'])
def test_a_benchmark_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(content)
    with pytest.raises(SpecError, match=r"--benchmark: .* is not what `nightjar benchmark` writes"):
        read_speed(path)
