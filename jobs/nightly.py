"""`nightjar nightly`: a snapshot that equals its source, at the price of what has changed.

The same spec as for `embed`, and the same snapshot where everything is new. What the last one has
is compared row by row with the shards that have changed, and no vector is computed that was
computed before: see `pipeline.nightly.night`.
"""

import json
import time
from dataclasses import asdict, dataclass
from functools import partial

from jobs.devices import Devices, devices
from jobs.embed import CheckedJob, accept, check, report_of, report_of_nothing, tell_next
from pipeline.commit import digest
from pipeline.driver import drive
from pipeline.job_file import keep_job
from pipeline.log import newest_entry
from pipeline.nightly.counts import Counts
from pipeline.nightly.night import Night
from pipeline.report import RunReport
from pipeline.spec import JobSpec


@dataclass(frozen=True, kw_only=True)
class NightReport:
    """What a night did."""

    run: RunReport
    """As of any run."""
    counts: Counts | None
    """What it found; None when there was nothing to compare."""

    def to_json(self) -> str:
        """As one JSON object."""
        found = None if self.counts is None else asdict(self.counts)
        return json.dumps(asdict(self.run) | {"found": found}, indent=2)

    def sentence(self) -> str:
        """A short account for a person."""
        if self.counts is None:
            return self.run.sentence()
        found = self.counts
        return (
            f"{found.new:,} new, {found.changed:,} changed, {found.updated:,} updated, "
            f"{found.gone:,} gone, {found.carried:,} carried; {self.run.sentence()}"
        )


def run(path: str, spec: JobSpec, address: str, as_json: bool) -> None:
    """The command, with the spec that was read from a path."""
    report = nightly(spec, address)
    if as_json:
        print(report.to_json())
        return
    print(report.sentence())
    tell_next(path, spec, report.run)


def nightly(spec: JobSpec, address: str) -> NightReport:
    """Bring a dataset up to its source, and commit the result.

    Args:
        spec: the job.
        address: which Ray, or `none`.

    Raises:
        UserError: the spec, its source, checkpoint or output is wrong.
        RunError: the run failed; nothing was committed.
    """
    started = time.monotonic()
    job = check(spec, anew=True)
    entry = job.snapshot(keep_gone=_keeps_gone(spec))
    if entry is not None:
        return NightReport(run=report_of_nothing(job, entry), counts=None)
    with devices(spec, job.plan, job.recipes_that_fit(), address) as there:
        keep_job(job.folder, spec)
        job.remembered.keep()
        night = night_of(job, there)
        base = newest_entry(job.folder)
        outcome = drive(
            job.folder,
            night.wanted,
            execute=partial(there.execute, frozenset()),
            accept=partial(accept, job.folder, spec),
        )
        counts = night.counts(base)
    report = report_of(job, outcome, time.monotonic() - started)
    return NightReport(run=report, counts=counts)


def night_of(job: CheckedJob, there: Devices) -> Night:
    """The night of a job."""
    keep_gone, recipe = _keeps_gone(job.spec), there.recipe
    return Night(
        folder=job.folder,
        units=job.plan.units,
        shards=job.plan.shards,
        schema=recipe.schema,
        fingerprint=recipe.fingerprint,
        compare=there.compare,
        places=there.places,
        source_digest=digest(job.plan.units, recipe.fingerprint, keep_gone=keep_gone),
        keep_gone=keep_gone,
    )


def _keeps_gone(spec: JobSpec) -> bool:
    return spec.nightly.on_gone == "keep"
