"""What a run on a real cluster exports is what its account says."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.stages.series import METRICS, Kind
from tests.end_to_end.clusters import Cluster, nightjar
from tests.end_to_end.scraped import Sample, awaited, by, samples, total
from tests.end_to_end.small_corpus import REASONS, ROWS
from tests.infra.expressions import drawn, metrics_of, recorded, rules

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_every_metric_is_exported_and_equals_the_account_of_the_run(
    spec: Path, cluster: Cluster
) -> None:
    job = ("--set", "name=metered", "--price", "3.6")
    began = time.monotonic()
    done = nightjar("embed", spec, "--address", cluster.address, "--json", *job)
    took = time.monotonic() - began
    assert done.code == 0, done.err
    found = awaited(cluster, "metered", ROWS)
    report: dict[str, Any] = json.loads(done.out)
    _demand_equal(found, report, spec.parent / "out")
    _demand_sensible(found, took)
    assert {sample.name for sample in found} == {metric.exported for metric in METRICS}
    for metric in METRICS:
        mine = [sample for sample in found if sample.name == metric.exported]
        assert all({"job_name", *metric.labels} <= set(sample.labels) for sample in mine)
    # and this is all that the rules and the dashboard ask for
    expressions = [rule["expr"] for rule in rules()] + [expression for _, expression in drawn()]
    named = set().union(*map(metrics_of, expressions))
    assert named <= {sample.name for sample in found} | recorded()
    (pool,) = by(found, "ray_nightjar_rows_total", "pool")
    (host,) = by(found, "ray_nightjar_rows_total", "host")
    assert f"\n{pool}: model loaded in " in done.err
    assert f" s on {host} (" in done.err


def _demand_equal(found: list[Sample], report: dict[str, Any], output: Path) -> None:
    assert total(found, "ray_nightjar_rows_total") == report["rows"] == ROWS
    assert total(found, "ray_nightjar_items_total") == report["items"]
    assert total(found, "ray_nightjar_tokens_total") == report["tokens"]
    assert by(found, "ray_nightjar_embeddings_total", "modality") == report["embedded"]
    assert by(found, "ray_nightjar_quarantined_items_total", "reason") == REASONS
    assert by(found, "ray_nightjar_items_total", "adapter") == report["pools"]
    files = [path for kind in ("data", "quarantine") for path in (output / kind).rglob("*.*")]
    size = sum(path.stat().st_size for path in files)
    assert total(found, "ray_nightjar_written_bytes_total") == size
    assert total(found, "ray_nightjar_units_total") == len(list((output / "work").rglob("*.json")))


def _demand_sensible(found: list[Sample], took: float) -> None:
    """What no account has."""
    # canaries are computed too
    assert total(found, "ray_nightjar_device_tokens_total") > total(
        found, "ray_nightjar_tokens_total"
    )
    embedded = by(found, "ray_nightjar_embeddings_total", "modality")
    pages = total(found, "ray_nightjar_device_pages_total")
    assert embedded["image"] < pages < total(found, "ray_nightjar_device_items_total")
    assert total(found, "ray_nightjar_device_batches_total") > 0
    held = total(found, "ray_nightjar_device_held_seconds_total")
    workers = total(found, "ray_nightjar_model_loads_total")
    assert 0 < total(found, "ray_nightjar_device_busy_seconds_total") < held < workers * took
    assert total(found, "ray_nightjar_cost_total") == pytest.approx(held / 1000)
    assert 0 < total(found, "ray_nightjar_model_load_seconds_total") < held
    # zero, and there
    assert total(found, "ray_nightjar_model_fetch_seconds_total") == pytest.approx(0)
    assert total(found, "ray_nightjar_retries_total") == pytest.approx(0)
    gauges = {metric.exported for metric in METRICS if metric.kind is Kind.GAUGE}
    assert gauges <= {sample.name for sample in found}
    assert total(found, "ray_nightjar_waiting_units") == 0
    assert total(found, "ray_nightjar_planned_rows") == ROWS


def test_runs_of_one_job_are_told_apart_and_gauges_go_with_their_run(
    spec: Path, cluster: Cluster
) -> None:
    first = ("--set", "name=twice", "--set", f"output.uri={spec.parent}/first")
    again = ("--set", "name=twice", "--set", f"output.uri={spec.parent}/again")
    for where, more in ((cluster.address, first), (cluster.client_address, again)):
        done = nightjar("embed", spec, "--address", where, *more)
        assert done.code == 0, done.err
    found = awaited(cluster, "twice", 2 * ROWS)
    assert list(by(found, "ray_nightjar_rows_total", "WorkerId").values()) == [ROWS, ROWS]
    # nobody has said a price
    assert "ray_nightjar_cost_total" not in {sample.name for sample in found}
    deadline = time.monotonic() + 90
    while any(s.name == "ray_nightjar_workers" for s in samples(cluster, "twice")):
        assert time.monotonic() < deadline
        time.sleep(1)
