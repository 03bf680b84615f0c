"""Series: the metrics of a run, and their values, as the board's progress has them.

Sums only grow while a run goes on; they are exported as counters, by what was added since the last
time, since Ray's counters can only be added to. Levels go up and down; they are gauges, and vanish
soon after the run. Shares are left to whoever reads: a share of sums over hosts is no mean of
shares, and none of its own can be added up over time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pipeline.stages.told import Progress


class Kind(StrEnum):
    """How a metric moves."""

    COUNTER = "counter"
    """It only grows."""
    GAUGE = "gauge"
    """It goes up and down."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is counted or measured."""

    name: str
    """As Ray is told it."""
    kind: Kind
    """How it moves."""
    unit: str
    """Of its values."""
    labels: tuple[str, ...]
    """That tell its series apart, besides `job_name`."""
    meaning: str
    """For people."""

    @property
    def exported(self) -> str:
        """Its name as Ray's agents export it."""
        return f"ray_{self.name}{'_total' if self.kind is Kind.COUNTER else ''}"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a run is held to."""

    job: str
    """The spec's name."""
    price: float | None
    """Of a device for an hour; None when nobody has said."""
    quarantine_share: float
    """Of items set aside, with which nothing is committed."""
    stall: float
    """Seconds without a move after which it is given up."""


Series = tuple[Metric, tuple[str, ...]]
"""A metric, and the values of its labels."""

_UNIT, _DEVICE = ("pool", "host", "adapter"), ("pool", "host")


def _counter(name: str, unit: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(
        name=f"nightjar_{name}", kind=Kind.COUNTER, unit=unit, labels=labels, meaning=meaning
    )


def _gauge(name: str, unit: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(
        name=f"nightjar_{name}", kind=Kind.GAUGE, unit=unit, labels=labels, meaning=meaning
    )


_UNITS = _counter("units", "units", _UNIT, "units written")
_ROWS = _counter("rows", "rows", _UNIT, "source rows of these")
_ITEMS = _counter("items", "items", _UNIT, "embeddings that those rows asked for")
_TOKENS = _counter("tokens", "tokens", _UNIT, "tokens of what was embedded")
_BYTES = _counter("written_bytes", "bytes", _UNIT, "bytes of files written")
_EMBEDDED = _counter("embeddings", "embeddings", (*_UNIT, "modality"), "embeddings written")
_QUARANTINED = _counter("quarantined_items", "items", (*_UNIT, "reason"), "items set aside")
_RETRIES = _counter("retries", "attempts", ("pool", "stage"), "stages begun again")
_STAGE = _counter("stage_seconds", "seconds", ("stage",), "time of workers in a stage")
_PACKS = _counter("device_batches", "batches", _DEVICE, "forward passes")
_SEEN = _counter("device_items", "items", _DEVICE, "texts and images in these, canaries too")
_PAGES = _counter("device_pages", "images", _DEVICE, "images in these")
_COMPUTED = _counter("device_tokens", "tokens", _DEVICE, "tokens in these")
_PADDING = _counter("device_padding_tokens", "tokens", _DEVICE, "tokens added that are nobody's")
_PATCHES = _counter("device_patches", "patches", _DEVICE, "image patches in these")
_BUSY = _counter("device_busy_seconds", "seconds", _DEVICE, "time that devices were at work")
_HELD = _counter("device_held_seconds", "seconds", _DEVICE, "time that workers have held devices")
_COST = _counter("cost", "money, as `--price`", _DEVICE, "what that time costs, with `--price`")
_LOADS = _counter("model_loads", "loads", _DEVICE, "workers that have loaded the model")
_LOADING = _counter("model_load_seconds", "seconds", _DEVICE, "time from a worker's start to that")
_FETCHING = _counter("model_fetch_seconds", "seconds", _DEVICE, "of it, for weights to be fetched")
_PLANNED = _gauge(
    "planned_rows", "rows", ("pool", "adapter"), "source rows that are to be embedded"
)
_WAITING = _gauge("waiting_units", "units", ("pool", "stage"), "units that wait for a stage")
_WORKERS = _gauge("workers", "workers", _DEVICE, "workers with a device, now")
_STILL = _gauge("still_seconds", "seconds", (), "time in which nothing has moved")
_STALL = _gauge("stall_limit_seconds", "seconds", (), "`limits.stall`: when it is given up")
_LIMIT = _gauge("quarantine_limit_ratio", "share", (), "`limits.quarantine_share`")

METRICS = (
    *(_UNITS, _ROWS, _ITEMS, _TOKENS, _BYTES, _EMBEDDED, _QUARANTINED, _RETRIES, _STAGE),
    *(_PACKS, _SEEN, _PAGES, _COMPUTED, _PADDING, _PATCHES, _BUSY, _HELD, _COST),
    *(_LOADS, _LOADING, _FETCHING, _PLANNED, _WAITING, _WORKERS, _STILL, _STALL, _LIMIT),
)
"""All there are."""


def sums(progress: Progress, terms: Terms) -> dict[Series, float]:
    """The values of all counters."""
    found: dict[Series, float] = {}
    for (seat, adapter), tally in progress.written.items():
        at = (seat.pool, seat.host, adapter)
        found |= {
            (_UNITS, at): tally.units,
            (_ROWS, at): tally.rows,
            (_ITEMS, at): tally.items,
            (_TOKENS, at): tally.tokens,
            (_BYTES, at): tally.size,
        }
        found |= {(_EMBEDDED, (*at, kind)): count for kind, count in tally.embedded.items()}
        found |= {(_QUARANTINED, (*at, why)): count for why, count in tally.quarantined.items()}
    # a counter that is not there is no zero: what may never happen is told from the start
    found |= {(_RETRIES, at): 0 for at in progress.waiting}
    found |= {(_RETRIES, at): count for at, count in progress.retries.items()}
    found |= {(_STAGE, (stage,)): seconds for stage, seconds in progress.seconds.items()}
    for seat, work in progress.devices.items():
        where = (seat.pool, seat.host)
        found |= {
            (_PACKS, where): work.packs,
            (_SEEN, where): work.items,
            (_PAGES, where): work.images,
            (_COMPUTED, where): work.tokens,
            (_PADDING, where): work.padding,
            (_PATCHES, where): work.patches,
            (_BUSY, where): work.busy_seconds,
            (_HELD, where): work.held_seconds,
        }
        if terms.price is not None:
            found[_COST, where] = work.held_seconds / 3600 * terms.price
    for load in progress.loads:
        where = (load.seat.pool, load.seat.host)
        told = {_LOADS: 1.0, _LOADING: load.seconds, _FETCHING: load.fetch_seconds}
        for metric, value in told.items():
            found[metric, where] = found.get((metric, where), 0.0) + value
    return found


def levels(progress: Progress, terms: Terms, still: float) -> dict[Series, float]:
    """The values of all gauges.

    Args:
        progress: of the run.
        terms: likewise.
        still: seconds in which nothing has moved.
    """
    found: dict[Series, float] = {
        (_STILL, ()): still,
        (_STALL, ()): terms.stall,
        (_LIMIT, ()): terms.quarantine_share,
    }
    found |= {(_PLANNED, at): rows for at, rows in progress.planned.items()}
    found |= {(_WAITING, at): units for at, units in progress.waiting.items()}
    found |= {(_WORKERS, (s.pool, s.host)): count for s, count in progress.living.items()}
    return found


class Differences:
    """What was added to sums since they were looked at before."""

    def __init__(self) -> None:
        self._told: dict[Series, float] = {}

    def since(self, found: Mapping[Series, float]) -> dict[Series, float]:
        """What is more than all that this has given before; nothing for what is seen first at zero.

        A sum that is less than before, since an older one is looked at, adds nothing.
        """
        added: dict[Series, float] = {}
        for series, value in found.items():
            before = self._told.get(series, 0.0)
            if value > before or series not in self._told:
                added[series] = value - before
                # of what was given, not of what there is: rounding must not add up
                self._told[series] = before + added[series]
        return added
