"""`nightjar embed`: a corpus into a committed Arrow dataset.

Everything a user can get wrong is checked before a cluster is started or a weight is loaded: the
spec, the checkpoint's files, the source, the output. A second run of the same work finds its
snapshot and does nothing; a run after one that was cut off finds the units that are done.

Nothing that Ray says decides what is committed: the units' records do. When another driver commits
meanwhile, or a collector condemns files, what is still valid is looked up again and only the rest
is done again.
"""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from jobs.accounts import Account
from jobs.devices import devices
from jobs.verdicts import accept, demand_passed
from pipeline.commit import demand_fit, digest, find_snapshot
from pipeline.dataset import demand_there
from pipeline.driver import Outcome, Wanted, drive
from pipeline.folder import Folder
from pipeline.job_file import keep_job
from pipeline.log import LogEntry, newest_entry
from pipeline.manifest import read_manifest
from pipeline.model.processor import Processor
from pipeline.patience import FIRST_PATIENCE
from pipeline.report import PassedOver, RunReport, account, unchanged
from pipeline.shards.remembered import Remembered
from pipeline.spec import JobSpec
from pipeline.stages.opened import open_model
from pipeline.stages.plan import Plan, plan_work
from pipeline.stages.recipe import Recipe
from pipeline.storage import use_stores
from pipeline.work import Receipt, WorkUnit


def run(path: str, spec: JobSpec, address: str, *, price: float | None, as_json: bool) -> None:
    """The command, with the spec that was read from a path."""
    report = embed(spec, address, price)
    if as_json:
        print(report.to_json())
    else:
        print(report.sentence())
        tell_next(path, spec, report)
    demand_passed(Folder(spec.output.uri), report.version)


def tell_next(path: str, spec: JobSpec, report: RunReport) -> None:
    """Say where the result is, and what may be done with it."""
    print(f"dataset: {report.dataset} (version {report.version})")
    # as it can be typed here: the quickstart's environment is not on the path
    command = "nightjar" if shutil.which("nightjar") else sys.argv[0]
    what = "quarantine" if report.quarantined else "show"
    storage = f" --storage {path}" if spec.storage else ""
    version = "" if report.published else f" --version {report.version}"
    print(f"next:    {command} {what} {report.dataset}{version}{storage}")


def embed(spec: JobSpec, address: str, price: float | None = None) -> RunReport:
    """Embed a corpus and commit the result.

    Args:
        spec: the job.
        address: which Ray, or `none`.
        price: of a device for an hour, for the account of the run.

    Raises:
        UserError: the spec, its source, checkpoint or output is wrong.
        RunError: the run failed; nothing was committed.
    """
    account = Account(command="embed", price=price)
    with account.planning(spec):
        job = check(spec)
    with account.kept(job.folder, spec.name):
        entry = job.snapshot()
        if entry is not None:
            report = report_of_nothing(job, entry)
        else:
            report = report_of(job, finish(job, address, account), account.seconds)
        account.close(report)
    return report


def report_of_nothing(job: "CheckedJob", entry: LogEntry) -> RunReport:
    """The account of a run that found its snapshot there: no cluster is started for nothing.

    Raises:
        OutputError: a file of the snapshot is missing or cut.
    """
    demand_there(job.folder, entry)
    # another job may have been begun here meanwhile, and what is gone on with is the one whose
    # snapshot is there
    keep_job(job.folder, job.spec)
    return unchanged(job.spec.output.uri, entry, job.passed_over(entry))


def report_of(job: "CheckedJob", outcome: Outcome, seconds: float) -> RunReport:
    """The account of a run that led to an outcome.

    Raises:
        OutputError: a file of the snapshot is missing or cut.
    """
    if outcome.receipts is None:
        demand_there(job.folder, outcome.entry)
        passed_over = job.passed_over(outcome.entry)
        return unchanged(job.spec.output.uri, outcome.entry, passed_over, seconds)
    return account(
        outcome.receipts,
        dataset=job.spec.output.uri,
        entry=outcome.entry,
        resumed=outcome.resumed,
        passed_over=job.passed_over(outcome.entry),
        seconds=seconds,
    )


@dataclass(frozen=True, kw_only=True)
class CheckedJob:
    """A job in which a user can have got nothing wrong any more."""

    spec: JobSpec
    """As it was given."""
    plan: Plan
    """Of its source."""
    recipes: Mapping[str, Recipe]
    """By dtype: `auto` is settled by the devices that are found, until then either may be meant."""
    folder: Folder
    """The output."""
    remembered: Remembered
    """What the plan learned of the shards."""

    def recipes_that_fit(self) -> Mapping[str, Recipe]:
        """The recipes; where the output holds vectors of one of them, that one for every device."""
        newest = newest_entry(self.folder)
        for recipe in self.recipes.values():
            if newest is not None and newest.fingerprint == recipe.fingerprint:
                return dict.fromkeys((*self.recipes, "float32", "bfloat16"), recipe)
        return self.recipes

    def passed_over(self, entry: LogEntry) -> PassedOver:
        """The shards that could not be read, as the snapshot of an entry has them."""
        unread = self.plan.unread
        return PassedOver.of(unread, read_manifest(self.folder, entry.manifest) if unread else None)

    def snapshot(self, *, keep_gone: bool = False, unread: Iterable[str] = ()) -> LogEntry | None:
        """What `made` finds, unless it is to be judged again."""
        found = self.made(keep_gone=keep_gone, unread=unread)
        return None if found is None or self._is_to_be_judged(found) else found

    def made(self, *, keep_gone: bool = False, unread: Iterable[str] = ()) -> LogEntry | None:
        """The newest entry of the log, when it holds this job's work, and rows that are gone, or of
        shards that cannot be read."""
        newest = newest_entry(self.folder)
        for recipe in self.recipes.values():
            wanted = digest(self.plan.units, recipe.fingerprint, keep_gone=keep_gone, unread=unread)
            found = find_snapshot(newest, wanted, recipe.fingerprint)
            if found is not None:
                return found
        return None

    def _is_to_be_judged(self, entry: LogEntry) -> bool:
        is_waiting = entry.candidate and not entry.refused
        return entry.candidate and not (is_waiting and self.spec.nightly.publish == "manual")


def check(
    spec: JobSpec, *, anew: bool = False, writes: bool = True, allow_empty: bool = False
) -> CheckedJob:
    """Check everything that can be checked before a cluster is started or a weight is loaded.

    Args:
        spec: the job.
        anew: whether the output may hold vectors made another way.
        writes: whether the output is to be written to.
        allow_empty: whether the source may be.

    Raises:
        UserError: the spec, its source, checkpoint or output is wrong.
    """
    use_stores(spec.storage)
    checkpoint = open_model(spec.model.path)
    Processor(checkpoint, max_length=spec.model.max_length, max_pixels=spec.model.max_pixels)
    if writes:
        # nothing would be lost yet: a wrong endpoint is told soon
        Folder(spec.output.uri, FIRST_PATIENCE).demand_create()
    folder = Folder(spec.output.uri)
    remembered = Remembered(folder)
    max_pixels = spec.model.max_pixels or checkpoint.pixel_bounds[1]
    plan = plan_work(spec, max_pixels, remembered, allow_empty=allow_empty)
    checkpoint.demand_adapters(plan.rows_by_adapter)
    dtypes = ("float32", "bfloat16") if spec.model.dtype == "auto" else (spec.model.dtype,)
    recipes = {dtype: Recipe.of(spec, checkpoint, plan, dtype) for dtype in dtypes}
    if not anew:
        fingerprints = [recipe.fingerprint for recipe in recipes.values()]
        schema = next(iter(recipes.values())).schema
        demand_fit(folder, newest_entry(folder), schema, fingerprints)
    return CheckedJob(spec=spec, plan=plan, recipes=recipes, folder=folder, remembered=remembered)


def finish(job: CheckedJob, address: str, account: Account) -> Outcome:
    """Do what is left of a job, and commit it.

    Args:
        job: checked.
        address: which Ray, or `none`.
        account: of the run.

    Raises:
        RunError: the run failed; nothing was committed.
    """
    with devices(job.spec, job.plan, job.recipes, address, account) as there:
        recipe = there.recipe
        wanted = Wanted(
            units=job.plan.units,
            shards=job.plan.shards,
            schema=recipe.schema,
            fingerprint=recipe.fingerprint,
            source_digest=digest(job.plan.units, recipe.fingerprint),
        )

        def plan(newest: LogEntry | None, void: frozenset[str]) -> Wanted:
            demand_fit(job.folder, newest, recipe.schema, [recipe.fingerprint])
            return wanted

        def execute(
            units: Sequence[WorkUnit],
            revisions: Mapping[str, int],
            earlier: Mapping[str, Receipt],
        ) -> list[Receipt]:
            _tell_rest(job.plan, units)
            return there.execute(frozenset(), units, revisions, earlier)

        plan(newest_entry(job.folder), frozenset())
        keep_job(job.folder, job.spec)
        job.remembered.keep()
        return drive(
            job.folder,
            plan,
            execute=execute,
            accept=partial(accept, job.folder, job.spec),
        )


def _tell_rest(plan: Plan, units: Sequence[WorkUnit]) -> None:
    done = plan.rows - sum(unit.rows for unit in units)
    if done:
        print(f"{done:,} of {plan.rows:,} rows were done by an earlier run", file=sys.stderr)
