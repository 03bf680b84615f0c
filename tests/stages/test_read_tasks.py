"""What the driver holds of each read task: as little, however many units are done again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle

from jobs.embed import CheckedJob, check
from pipeline.spec import JobSpec
from pipeline.stages.flow import opened_together
from pipeline.stages.ray_flow import UnitDatasource
from pipeline.work import Receipt
from tests.jobs import write_parquet


@pytest.fixture
def job(tmp_path: Path, tiny_checkpoint: Path) -> CheckedJob:
    """Two units, each in a row group of its own."""
    spec = {
        "name": "reads",
        "model": {"path": str(tiny_checkpoint), "dtype": "float32"},
        "source": write_parquet(tmp_path / "one.parquet"),
        "output": {"uri": str(tmp_path / "output"), "single": {}},
        "compute": {"unit_rows": 2},
    }
    return check(JobSpec.model_validate(spec))


def test_a_read_task_holds_neither_the_recipe_nor_what_became_of_other_units(
    job: CheckedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(ray, "put", lambda thing: kept.append(thing) or len(kept) - 1)
    monkeypatch.setattr(ray, "get", lambda reference: kept[reference])
    recipe, groups = job.recipes["float32"], opened_together(job.plan.units)
    first, second = (unit.key(recipe.fingerprint) for unit in job.plan.units)
    receipts = {key: _receipt(key) for key in (first, second, *map(str, range(500)))}
    again = replace(recipe, revisions=dict.fromkeys(receipts, 1), earlier=receipts)

    plain, told = (UnitDatasource(made, groups, None) for made in (recipe, again))
    sizes = [len(cloudpickle.dumps(task)) for task in plain.get_read_tasks(1)]
    assert max(sizes) < len(cloudpickle.dumps(recipe))
    of_first, _ = told.get_read_tasks(1)
    assert len(cloudpickle.dumps(of_first)) < sizes[0] + 1000
    assert of_first.read_fn.earlier == {first: receipts[first]}
    # and all of that is there once
    assert [thing.earlier for thing in kept] == [{}, {}]


def _receipt(unit: str) -> Receipt:
    return Receipt(
        unit=unit,
        adapter="retrieval",
        rows=2,
        items=2,
        embedded={},
        quarantined={"empty": 2},
        tokens=0,
        data=None,
        quarantine=None,
    )
