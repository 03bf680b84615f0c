"""`nightjar nightly`: a snapshot that equals its source, at the price of what has changed.

The same spec as for `embed`, and the same snapshot where everything is new. What the last one has
is compared row by row with the shards that have changed, and no vector is computed that was
computed before: see `pipeline.nightly.night`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from jobs.accounts import Account
from jobs.devices import Devices, devices
from jobs.embed import CheckedJob, check, report_of, report_of_nothing, tell_next
from jobs.verdicts import demand_passed
from pipeline.commit import digest
from pipeline.driver import Outcome, drive
from pipeline.errors import EmptySource, RowError, SpecError
from pipeline.folder import Folder
from pipeline.job_file import keep_job
from pipeline.log import newest_entry
from pipeline.model.processor import Processor
from pipeline.nightly.counts import Counts
from pipeline.nightly.evidence import look_at
from pipeline.nightly.gate import Finding, Gate, QuerySet
from pipeline.nightly.night import Night
from pipeline.nightly.quality import search
from pipeline.nightly.queries import KEY, Query, read_queries
from pipeline.report import RunReport
from pipeline.schema import largest_single
from pipeline.spec import JobSpec
from pipeline.stages.opened import open_model
from pipeline.tasks import task_named


@dataclass(frozen=True, kw_only=True)
class NightReport:
    """What a night did."""

    run: RunReport
    """As of any run."""
    counts: Counts | None
    """What it found; None when there was nothing to compare."""
    findings: tuple[Finding, ...]
    """What the gate measured."""

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self.run) | self.more(), indent=2)

    def more(self) -> dict[str, Any]:
        """What it says beyond the account of any run."""
        found = None if self.counts is None else asdict(self.counts)
        return {"found": found, "gate": [asdict(finding) for finding in self.findings]}

    def sentence(self) -> str:
        """A short account for a person."""
        if self.counts is None:
            return self.run.sentence()
        found = self.counts
        return (
            f"{found.new:,} new, {found.changed:,} changed, {found.updated:,} updated, "
            f"{found.gone:,} gone, {found.carried:,} carried; {self.run.sentence()}"
        )


def run(
    path: str,
    spec: JobSpec,
    address: str,
    *,
    price: float | None,
    as_json: bool,
    allow_empty: bool,
) -> None:
    """The command, with the spec that was read from a path.

    Raises:
        SnapshotRefused: the gate did not give the snapshot to readers.
    """
    report = nightly(spec, address, price=price, allow_empty=allow_empty)
    if as_json:
        print(report.to_json())
    else:
        print(report.sentence())
        tell_next(path, spec, report.run)
    demand_passed(Folder(spec.output.uri), report.run.version)


def nightly(
    spec: JobSpec, address: str, *, price: float | None = None, allow_empty: bool = False
) -> NightReport:
    """Bring a dataset up to its source, and commit the result.

    Args:
        spec: the job.
        address: which Ray, or `none`.
        price: of a device for an hour, for the account of the run.
        allow_empty: whether a source without rows may empty the dataset.

    Raises:
        UserError: the spec, its source, checkpoint or output is wrong.
        RunError: the run failed; nothing was committed.
    """
    account = Account(command="nightly", price=price)
    with account.planning(spec):
        job = _checked(spec, allow_empty)
        queries = queries_of(job)
    with account.kept(job.folder, spec.name):
        entry = job.snapshot(keep_gone=keeps_gone(spec), unread=job.plan.unread)
        if entry is not None:
            report = NightReport(run=report_of_nothing(job, entry), counts=None, findings=())
        else:
            report = _done(job, queries, address, account)
        account.close(report.run, **report.more())
    return report


def _done(job: CheckedJob, queries: Sequence[Query], address: str, account: Account) -> NightReport:
    base = newest_entry(job.folder)
    outcome, night, findings = finish(job, queries, address, account, night_of)
    report = report_of(job, outcome, account.seconds)
    return NightReport(run=report, counts=night.counts(base), findings=findings)


def finish(
    job: CheckedJob,
    queries: Sequence[Query],
    address: str,
    account: Account,
    planned: Callable[[CheckedJob, Devices], Night],
) -> tuple[Outcome, Night, tuple[Finding, ...]]:
    """Do what a night of a job wants, and commit it.

    Args:
        job: checked.
        queries: what its gate asks.
        address: which Ray, or `none`.
        account: of the run.
        planned: makes the night, once it is known what it is done on.

    Raises:
        RunError: the run failed; nothing was committed.
    """
    # nothing is embedded of an empty source, and no pool would have anything to do
    where = address if job.plan.units else "none"
    with devices(job.spec, job.plan, job.recipes_that_fit(), where, account) as there:
        keep_job(job.folder, job.spec)
        job.remembered.keep()
        night, gate = planned(job, there), _gate(job, there, queries)
        outcome = drive(
            job.folder,
            account.timed("compare", night.wanted),
            execute=partial(there.execute, night.again),
            accept=account.timed("gate", gate.judge),
            again=night.again,
        )
    account.reasons = tuple(outcome.entry.refused) if outcome.entry.candidate else ()
    return outcome, night, tuple(gate.findings)


def night_of(job: CheckedJob, there: Devices) -> Night:
    """The night of a job."""
    keep_gone, recipe, plan = keeps_gone(job.spec), there.recipe, job.plan
    return Night(
        folder=job.folder,
        units=plan.units,
        shards=plan.shards,
        schema=recipe.schema,
        fingerprint=recipe.fingerprint,
        compare=there.compare,
        places=there.places,
        source_digest=digest(
            plan.units, recipe.fingerprint, keep_gone=keep_gone, unread=plan.unread
        ),
        keep_gone=keep_gone,
        unread=frozenset(plan.unread),
    )


def _gate(job: CheckedJob, there: Devices, queries: Sequence[Query]) -> Gate:
    recipe, spec = there.recipe, job.spec.nightly.gate
    column = largest_single(recipe.schema)
    asked = None
    if not job.plan.units:
        # who allowed that has said that all rows may be lost
        spec = spec.model_copy(update={"shrink": None})
    elif queries and column is not None:
        embed = partial(there.ask, queries)
        asked = QuerySet(queries=queries, embed=embed, column=column)
    return Gate(
        folder=job.folder,
        spec=spec,
        limits=job.spec.limits,
        publish=job.spec.nightly.publish == "auto",
        look=partial(there.each, partial(recipe.in_dataset, partial(look_at, recipe.schema))),
        search=lambda question, parts: there.each(
            partial(recipe.in_dataset, partial(search, recipe.schema, question)), parts
        ),
        query_set=asked,
    )


def queries_of(job: CheckedJob) -> list[Query]:
    """What the gate of a job asks.

    Raises:
        UserError: it cannot be read, or asked.
    """
    uri = job.spec.nightly.gate.queries
    if uri is None:
        return []
    if job.spec.output.single is None:
        raise SpecError(
            "nightly.gate.queries: single vectors are searched, and output.single is null"
        )
    queries = read_queries(uri)
    checkpoint = open_model(job.spec.model.path)
    checkpoint.demand_adapters({task_named(query.task).adapter for query in queries})
    processor = Processor(checkpoint, max_length=job.spec.model.max_length)
    for query in queries:
        try:
            processor.text(query.text, task_named(query.task))
        except RowError as error:
            # not after everything was embedded
            raise SpecError(f"{KEY}: {uri!r}, {query.text!r}: {error}") from error
    return queries


def _checked(spec: JobSpec, allow_empty: bool) -> CheckedJob:
    """The job, checked; what an empty source may mean is told.

    Raises:
        UserError: the spec, its source, checkpoint or output is wrong.
    """
    if allow_empty and keeps_gone(spec):
        raise SpecError("--allow-empty: nightly.on_gone is keep, so no row would be deleted anyway")
    try:
        return check(spec, anew=True, allow_empty=allow_empty)
    except EmptySource as error:
        if newest_entry(Folder(spec.output.uri)) is not None:
            error.add_note(
                "the dataset was left as it is; `nightjar nightly --allow-empty` deletes its rows"
            )
        raise


def keeps_gone(spec: JobSpec) -> bool:
    """Whether rows that are gone from the source stay."""
    return spec.nightly.on_gone == "keep"
