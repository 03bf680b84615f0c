"""The paper's tables are the model's, and the model is the record's, wherever both speak."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.scaling_model import tables
from benchmarks.simulation.scaled import Assumed, Run
from benchmarks.simulation.slopes import line, measured, newest_runs, of_choice

PAPER = Path(__file__).parents[2] / "benchmarks" / "scaling.md"


@pytest.fixture(scope="module")
def runs() -> list[dict[str, Any]]:
    """The newest record's."""
    return newest_runs()


@pytest.fixture
def model(runs: list[dict[str, Any]]) -> Run:
    """Of as many rows as were simulated."""
    rows = of_choice(runs, "refuse")["corpus"]["rows"]
    return Run(rows=rows, gpus=1, known=measured(runs), assumed=Assumed())


def test_the_tables_of_the_paper_are_what_the_model_prints(runs: list[dict[str, Any]]) -> None:
    text = PAPER.read_text()
    for table in tables(measured(runs), Assumed()).split("\n\n"):
        assert table in text, table.splitlines()[0]


def test_the_driver_holds_less_than_two_gib_at_a_hundred_million_rows(
    runs: list[dict[str, Any]], model: Run
) -> None:
    assert model.rows == 100_000_000
    for run in runs:
        assert run["corpus"]["rows"] == 100_000_000
        for step in run["steps"].values():
            assert step["highest"] < 2 * 2**30
    # computed: no run on Ray had as many units
    assert max(model.plan_bytes, model.drive_bytes) < 2 * 2**30


def test_the_model_agrees_with_the_runs_on_ray(runs: list[dict[str, Any]]) -> None:
    on_ray = [run for run in runs if run["on_ray"]]
    assert len(on_ray) >= 3
    for run in on_ray:
        first, rows = run["steps"]["embed"], run["corpus"]["rows"]
        # where row groups do not divide a shard, there is a smaller unit at its end
        unit_rows = rows // first["found"]["units"] + 1
        model = Run(rows=rows, gpus=4, known=measured(runs), assumed=Assumed(unit_rows=unit_rows))
        assert model.units == pytest.approx(first["found"]["units"], abs=1)
        assert model.drive_bytes == pytest.approx(first["highest"], rel=0.1)


def test_the_model_agrees_with_the_run_in_one_process(
    runs: list[dict[str, Any]], model: Run
) -> None:
    run = of_choice(runs, "refuse")
    first, there = run["steps"]["embed"], run["objects"]
    assert model.units == pytest.approx(first["found"]["units"], rel=0.001)
    assert there["data"]["objects"] == there["work"]["objects"] == first["found"]["units"]
    objects = sum(there[name]["objects"] for name in ("data", "work", "inspections"))
    assert model.objects == pytest.approx(objects, rel=0.001)
    requests = first["requests"]
    assert model.puts == pytest.approx(requests["PUT"] + requests["LIST"], rel=0.01)
    # simulated workers read nothing
    read = model.assumed.reads_per_unit * model.units
    assert model.gets - read == pytest.approx(requests["GET"], rel=0.01)
    on_ray = model.known.ray_unit_cpu * model.units
    own = first["cpu"] - first["phases"]["workers"]["cpu"]
    assert model.driver_cpu - on_ray == pytest.approx(own, rel=0.01)
    assert model.plan_bytes == pytest.approx(first["phases"]["plan"]["highest"], rel=0.01)


def test_a_line_goes_through_points_on_one() -> None:
    assert line([1, 2, 4], [5, 7, 11]) == pytest.approx((3, 2))
