"""What the rules and the dashboard ask for is there, and looks as it should."""

import re

import pytest

from pipeline.stages.series import METRICS
from tests.infra.expressions import (
    DASHBOARD,
    drawn,
    labels_of,
    metrics_of,
    panels,
    recorded,
    rules,
    variables,
)

_EXPRESSIONS = [rule["expr"] for rule in rules()] + [expression for _, expression in drawn()]
_OWN = {name for metric in METRICS for name in metric.labels} | {"job_name", "WorkerId"}


@pytest.mark.parametrize("expression", _EXPRESSIONS)
def test_expressions_name_only_what_is_exported_or_recorded(expression: str) -> None:
    named = metrics_of(expression)
    assert named
    assert named <= {metric.exported for metric in METRICS} | recorded()
    assert labels_of(expression) <= _OWN


def test_every_metric_is_of_use_to_the_rules_or_the_dashboard() -> None:
    used = set().union(*map(metrics_of, _EXPRESSIONS))
    unused = {metric.exported for metric in METRICS} - used
    # sums that others are held against by hand
    assert unused <= {"ray_nightjar_units_total"}


def test_names_are_found_whatever_surrounds_them() -> None:
    expression = (
        '1e6 * sum by (job_name, pool) (rate(a_total{pool=~"x|y", host!="b"}[5m])) '
        '/ on (job_name) (job:b:rate5m > 0) and c{stage="embed"} offset 5m or sum(d)'
    )
    assert metrics_of(expression) == {"a_total", "job:b:rate5m", "c", "d"}
    assert labels_of(expression) == {"job_name", "pool", "host", "stage"}


def test_panels_are_titled_have_units_and_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["title"] and panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel["targets"]:
            # what the legend names must be there
            grouped = labels_of(target["expr"])
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= grouped
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - {"__all"}
    assert used == {variable["name"] for variable in variables()}


def test_every_alert_says_what_it_is_about() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"] == {"severity": "warning"}
            assert "{{ $labels.job_name }}" in rule["annotations"]["summary"]
            assert rule["annotations"]["description"]
