"""`nightjar plan`: what `nightjar nightly` would do, before anything is spent. Nothing is written.

The source is compared as a night compares it. What would be embedded is prepared to be counted,
all of it or, where that is much, an even sample of units.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from jobs.accounts import Account
from jobs.devices import Devices, devices
from jobs.embed import CheckedJob, check
from jobs.nightly import night_of
from pipeline.benchmark.forecast import Speed, read_speed
from pipeline.log import newest_entry
from pipeline.manifest import read_void
from pipeline.nightly.counts import Counts
from pipeline.records import Records
from pipeline.spec import JobSpec
from pipeline.stages.flow import opened_together
from pipeline.stages.weigh import Weight, total
from pipeline.work import WorkUnit

_BENCHMARK = Path("benchmark/benchmark.json")
"""Where `nightjar benchmark` writes by default."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a night would do."""

    generation: str
    """Of the vectors: the beginning of their fingerprint."""
    is_new_generation: bool
    """Whether the dataset has no snapshot of it."""
    shards: int
    """Of the source."""
    rows: int
    """Source rows."""
    found: Counts
    """What a comparison with the last snapshot found."""
    done_rows: int
    """Of the rows to be embedded, those that an earlier run has done."""
    sampled_rows: int | None
    """How many rows were prepared to count the rest; None for all: the counts are exact."""
    embedded: dict[str, int]
    """Items that would be embedded, by modality."""
    tokens: dict[str, int]
    """Their tokens, likewise."""
    patches: int
    """Image patches."""
    aside: int
    """Items that would be set aside before the model sees them."""
    files: int
    """Files that would be written, of embeddings."""
    bytes: int
    """Of their vectors."""
    device: str | None
    """Whose speed was measured; None when none was."""
    device_hours: float | None
    """On one such device."""
    cost: float | None
    """At the price given."""

    def sentences(self) -> list[str]:
        """For a person, a line each."""
        found = self.found
        how = "exact"
        if self.sampled_rows is not None:
            how = f"from a sample of {self.sampled_rows:,} rows"
        items = ", ".join(f"{n:,} {name}" for name, n in sorted(self.embedded.items())) or "nothing"
        lines = [
            f"source      {self.rows:,} rows in {self.shards:,} shards",
            f"found       {found.new:,} new, {found.changed:,} changed, {found.updated:,} updated, "
            f"{found.gone:,} gone, {found.carried:,} carried",
            f"to embed    {items}: {sum(self.tokens.values()):,} tokens, {self.patches:,} patches "
            f"({how})",
            f"to write    {self.files:,} files of embeddings, {self.bytes / 1e6:,.3f} MB of "
            "vectors, beside what is there",
        ]
        if self.is_new_generation:
            lines.insert(1, f"generation  {self.generation} is new: nothing of another is carried")
        if self.aside:
            lines.append(f"set aside   {self.aside:,} items, before the model sees them")
        if self.done_rows:
            lines.append(f"done        {self.done_rows:,} rows more, by an earlier run")
        if self.device_hours is None:
            lines.append(
                "time        unknown: no benchmark.json; `nightjar benchmark` writes one, and "
                "--benchmark says where it is"
            )
        else:
            cost = "" if self.cost is None else f", which cost {self.cost:,.2f}"
            hours = f"{self.device_hours:,.4f} hours of one {self.device}{cost}"
            lines.append(f"time        {hours}")
        return lines


def run(
    spec: JobSpec,
    address: str,
    *,
    benchmark: Path | None,
    price: float | None,
    sample: int,
    as_json: bool,
) -> None:
    """The command.

    Args:
        spec: the job.
        address: which Ray reads the source, or `none`.
        benchmark: what `nightjar benchmark` wrote; None for where it writes, if it has.
        price: of the device for an hour, in any currency.
        sample: rows that are prepared at most, about.
        as_json: whether to print JSON.

    Raises:
        UserError: the spec, its source, checkpoint, output or benchmark is wrong.
    """
    if benchmark is None and _BENCHMARK.exists():
        benchmark = _BENCHMARK
    speed = None if benchmark is None else read_speed(benchmark)
    job = check(spec, anew=True, writes=False)
    # nothing is written, its own account neither
    account = Account(command="plan", price=price)
    with devices(spec, job.plan, job.recipes_that_fit(), address, account) as there:
        forecast = _forecast(job, there, speed, price, sample)
    print(json.dumps(asdict(forecast), indent=2) if as_json else "\n".join(forecast.sentences()))


def _forecast(
    job: CheckedJob, there: Devices, speed: Speed | None, price: float | None, sample: int
) -> Forecast:
    night, newest = night_of(job, there), newest_entry(job.folder)
    void = read_void(job.folder, newest)
    wanted = night.wanted(newest, void)
    units = wanted.keyed(wanted.units)
    missing = Records(job.folder, there.recipe.fingerprint).standing(units, void).missing
    todo = [units[key] for key in missing]
    rows = sum(unit.rows for unit in todo)
    chosen = _even(todo, sample)
    weighed = total(there.each(there.recipe.weigh, opened_together(chosen)))
    weight = weighed.times(rows / weighed.rows) if weighed.rows else weighed
    hours = None if speed is None else _hours(speed, weight)
    return Forecast(
        generation=there.recipe.fingerprint[:8],
        is_new_generation=newest is not None and night.base(newest) is None,
        shards=len(job.plan.shards),
        rows=job.plan.rows,
        found=night.counts(newest),
        done_rows=sum(unit.rows for unit in units.values()) - rows,
        sampled_rows=None if len(chosen) == len(todo) else weighed.rows,
        embedded=dict(weight.items),
        tokens=dict(weight.tokens),
        patches=weight.patches,
        aside=weight.aside,
        files=len(todo),
        bytes=_bytes(there.recipe.vectors, weight),
        device=None if speed is None else speed.device,
        device_hours=hours,
        cost=None if hours is None or price is None else hours * price,
    )


def _even(units: Sequence[WorkUnit], rows: int) -> list[WorkUnit]:
    """Units of about so many rows, evenly from all; all of them when they have no more."""
    there = sum(unit.rows for unit in units)
    step = max(1, math.ceil(there / rows))
    return list(units[::step])


def _bytes(vectors: Sequence[pa.Field], weight: Weight) -> int:
    """Of the vectors of some items."""
    size = 0
    for field in vectors:
        kind, count = field.type, sum(weight.items.values())
        if not pa.types.is_fixed_size_list(kind):
            kind, count = kind.value_type, sum(weight.tokens.values())
        size += count * kind.list_size * kind.value_type.bit_width // 8
    return size


def _hours(speed: Speed, weight: Weight) -> float:
    seconds = sum(
        speed.seconds(name == "image", items, weight.tokens[name])
        for name, items in weight.items.items()
    )
    return seconds / 3600
