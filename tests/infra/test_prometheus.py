"""Debian's Prometheus on the shipped configuration, scraping a run on a real cluster."""

import json
import math
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.clusters import nightjar, running_cluster, wait_until
from tests.end_to_end.small_corpus import ROWS, write_corpus, write_spec
from tests.infra.expressions import INFRA, RULES, drawn, rules
from tests.installed import demand_installed

pytestmark = pytest.mark.system

SHIPPED = INFRA / "prometheus/prometheus.yaml"
_DISCOVERY = "/tmp/ray/prom_metrics_service_discovery.json"
_SCRAPED = "scrape_interval: 10s"


@pytest.fixture(autouse=True)
def prometheus() -> None:
    demand_installed([n for n in ("prometheus", "promtool") if not shutil.which(n)], "prometheus")


def _promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["promtool", *arguments],
        cwd=RULES.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_configuration_and_its_rules_are_valid() -> None:
    done = _promtool("check", "config", SHIPPED.name)
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_the_rules_pass_their_own_tests() -> None:
    done = _promtool("test", "rules", "rules_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    tested = (RULES.parent / "rules_test.yaml").read_text()
    for rule in rules():
        assert (rule.get("record") or rule["alert"]) in tested, "and each has one"


@contextmanager
def _scraping(folder: Path, discovery: Path) -> Iterator[str]:
    """Prometheus with the shipped files, but more often, and of a cluster that is elsewhere."""
    shipped = SHIPPED.read_text()
    assert shipped.count(_DISCOVERY) == shipped.count(_SCRAPED) == 1
    written = shipped.replace(_DISCOVERY, str(discovery)).replace(_SCRAPED, "scrape_interval: 1s")
    (folder / "prometheus.yaml").write_text(
        written.replace("evaluation_interval: 10s", "evaluation_interval: 1s")
    )
    shutil.copy(RULES, folder)
    log = folder / "prometheus.log"
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/data",
        # any that is free
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("w") as sink, subprocess.Popen(command, stderr=sink, stdout=sink) as process:
        try:
            told = 'msg="Listening on" address='
            wait_until(lambda: told in log.read_text(), f"Prometheus, see {log}")
            yield "http://" + log.read_text().split(told)[1].split()[0]
        finally:
            process.terminate()


def _asked(url: str, path: str, **parameters: str | float) -> Any:
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=30) as answer:
        told = json.loads(answer.read())
    assert told["status"] == "success"
    return told["data"]


def _values(url: str, expression: str, since: float) -> list[float]:
    """All values of an expression since then, of all series."""
    found = _asked(url, "query_range", query=expression, start=since, end=time.time(), step=1)
    return [float(value) for series in found["result"] for _, value in series["values"]]


def _has_values(url: str, expression: str, since: float) -> bool:
    return any(map(math.isfinite, _values(url, expression, since)))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_all_expressions_have_values_in_a_prometheus_that_scrapes_a_run(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    write_corpus(tmp_path / "corpus")
    spec = write_spec(
        tmp_path / "spec.yaml", tmp_path / "corpus", tiny_checkpoint, tmp_path / "out"
    )
    # as often as a Ray agent can get new values
    often = {"metrics_report_interval_ms": 1000}
    with running_cluster(tmp_path, dashboard=True, system_config=often) as cluster:
        discovery = cluster.session / Path(_DISCOVERY).name
        port = cluster.metrics.split(":")[1]
        wait_until(lambda: port in _text(discovery), "the agent's address")
        with _scraping(tmp_path, discovery) as url:
            began = time.time()
            # so many units that counts are seen to grow
            more = ("--price", "3.6", "--set", "compute.unit_rows=1")
            done = nightjar("embed", spec, "--address", cluster.address, *more)
            assert done.code == 0, done.err
            rows = 'sum(ray_nightjar_rows_total{job_name="small"})'
            wait_until(lambda: max(_values(url, rows, began), default=0) == ROWS, "all rows")
            asked = [expression for _, expression in drawn()]
            asked += [rule["record"] for rule in rules() if "record" in rule]
            for expression in asked:
                # rules are evaluated after what they are of has come
                wait_until(partial(_has_values, url, expression, began), expression, seconds=10)
            for rule in rules():
                _values(url, rule["expr"], began)
            states = [
                (rule["name"], rule["health"], rule.get("lastError"))
                for group in _asked(url, "rules")["groups"]
                for rule in group["rules"]
            ]
            assert len(states) == len(rules())
            assert {health for _, health, _ in states} == {"ok"}, states
            (limit,) = set(_values(url, "ray_nightjar_stall_limit_seconds", began))
            assert limit == 1800


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
