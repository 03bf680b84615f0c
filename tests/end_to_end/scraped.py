"""What a run has left at Ray's agent, as Prometheus would get it."""

import urllib.request
from collections import Counter
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.clusters import Cluster, wait_until


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A value of a series."""

    name: str
    """Of the metric."""
    labels: dict[str, str]
    """Of the series."""
    value: float
    """The last one."""


def samples(cluster: Cluster, job: str) -> list[Sample]:
    """Everything of ours that a cluster's head exports of a job."""
    with urllib.request.urlopen(f"http://{cluster.metrics}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return [
        Sample(name=sample.name, labels=dict(sample.labels), value=sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("ray_nightjar_") and sample.labels["job_name"] == job
    ]


def awaited(cluster: Cluster, job: str, rows: int) -> list[Sample]:
    """The same, when all rows are there: what a run tells last comes when its board has ended."""
    wait_until(
        lambda: total(samples(cluster, job), "ray_nightjar_rows_total") >= rows,
        f"{rows} rows at the agent",
        seconds=90,
    )
    return samples(cluster, job)


def total(found: list[Sample], name: str) -> float:
    """The sum over all series of a metric."""
    return sum(sample.value for sample in found if sample.name == name)


def by(found: list[Sample], name: str, label: str) -> dict[str, float]:
    """The sums by a label."""
    sums: Counter[str] = Counter()
    for sample in found:
        if sample.name == name:
            sums[sample.labels[label]] += sample.value
    return dict(sums)
