"""Metrics: a board whose counts Ray's own agent exports to Prometheus.

The board is told everything by the workers, so that it alone needs to export, on the head. It does
so whenever the driver looks at it, twice a second, and at the end of the run; Ray sends what it has
to the agent every ten seconds, and when the board's process ends. Where nobody scrapes the agent
nothing is lost but the counts. Whatever goes wrong here is logged once, and the run goes on.
"""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge

from pipeline.stages.board import Board
from pipeline.stages.cluster import ON_HEAD
from pipeline.stages.series import METRICS, Differences, Kind, Series, Terms, levels, sums
from pipeline.stages.told import Progress

logger = logging.getLogger(__name__)

_JOB = "job_name"
"""A label `job` would be Prometheus' own, and be renamed or not as a scrape is configured."""

_NOTHING = sys.float_info.min
"""Stands for zero, which Ray's counters refuse: a series that is not there has no rate, and when it
comes its first value is no increase. It vanishes in any sum."""


class Exporter:
    """Tells Ray what progress a run makes."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._differences = Differences()
        self._moves, self._moved = -1, time.monotonic()
        self._metrics: Mapping[str, Any] = {
            metric.name: (Counter if metric.kind is Kind.COUNTER else Gauge)(
                metric.name, description=metric.meaning, tag_keys=(_JOB, *metric.labels)
            )
            for metric in METRICS
        }

    def tell(self, progress: Progress) -> None:
        """Export what is new."""
        if progress.moves != self._moves:
            self._moves, self._moved = progress.moves, time.monotonic()
        for series, added in self._differences.since(sums(progress, self._terms)).items():
            self._metrics[series[0].name].inc(added or _NOTHING, tags=self._tags(series))
        still = time.monotonic() - self._moved
        for series, value in levels(progress, self._terms, still).items():
            self._metrics[series[0].name].set(value, tags=self._tags(series))

    def _tags(self, series: Series) -> dict[str, str]:
        metric, values = series
        return {_JOB: self._terms.job, **dict(zip(metric.labels, values, strict=True))}


class ExportedBoard(Board):
    """A board that exports what it shows."""

    def __init__(self, terms: Terms) -> None:
        super().__init__()
        self._exporter: Exporter | None = None
        try:
            self._exporter = Exporter(terms)
        except Exception:
            logger.exception("the metrics of this run are not exported")

    def read(self) -> Progress:
        """How far the run is, which is exported."""
        progress = super().read()
        if self._exporter is not None:
            try:
                self._exporter.tell(progress)
            except Exception:
                logger.exception("the metrics of this run are exported no longer")
                self._exporter = None
        return progress


def put_up_exported(terms: Terms) -> Any:
    """A board that exports what it shows, as an actor of Ray."""
    return ray.remote(**ON_HEAD)(ExportedBoard).remote(terms)
