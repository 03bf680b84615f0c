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
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice

from jobs.progress import display
from pipeline.commit import demand_fit, demand_healthy, digest, find_snapshot
from pipeline.dataset import read_quarantine
from pipeline.driver import Execute, drive
from pipeline.errors import RunError
from pipeline.folder import FIRST_PATIENCE, Folder
from pipeline.log import newest_entry
from pipeline.model.device import auto_dtype, pick_device
from pipeline.model.processor import Processor
from pipeline.report import RunReport, account, unchanged
from pipeline.spec import JobSpec
from pipeline.stages.cluster import connected
from pipeline.stages.flow import Recipe, open_model, run_in_process
from pipeline.stages.plan import Plan, plan_work
from pipeline.stages.ray_flow import run_on_ray
from pipeline.stages.route import Pool, choose_pools, describe
from pipeline.storage import use_stores
from pipeline.work import Receipt, WorkUnit, rows_by_adapter

_EXAMPLES = 3
"""Items to name of those that were set aside."""


def run(spec: JobSpec, address: str, as_json: bool) -> None:
    """The command."""
    report = embed(spec, address)
    if as_json:
        print(report.to_json())
        return
    print(report.sentence())
    print(f"dataset: {report.dataset} (version {report.version})")
    # as it can be typed here: the quickstart's environment is not on the path
    command = "nightjar" if shutil.which("nightjar") else sys.argv[0]
    what = "quarantine" if report.quarantined else "show"
    print(f"next:    {command} {what} {report.dataset}")


def embed(spec: JobSpec, address: str) -> RunReport:
    """Embed a corpus and commit the result.

    Args:
        spec: the job.
        address: which Ray, or `none`.

    Raises:
        UserError: the spec, its source, checkpoint or output is wrong.
        RunError: the run failed; nothing was committed.
    """
    started = time.monotonic()
    use_stores(spec.storage)
    checkpoint = open_model(spec.model.path)
    Processor(checkpoint, max_length=spec.model.max_length, max_pixels=spec.model.max_pixels)
    plan = plan_work(spec, spec.model.max_pixels or checkpoint.pixel_bounds[1])
    checkpoint.demand_adapters(plan.rows_by_adapter)
    # `auto` is settled by the devices that are found; until then either may be meant
    dtypes = ("float32", "bfloat16") if spec.model.dtype == "auto" else (spec.model.dtype,)
    recipes = {dtype: Recipe.of(spec, checkpoint, plan, dtype) for dtype in dtypes}
    # nothing would be lost yet: a wrong endpoint is told soon
    Folder(spec.output.uri, FIRST_PATIENCE).demand_create()
    folder = Folder(spec.output.uri)
    fingerprints = [recipe.fingerprint for recipe in recipes.values()]
    demand_fit(folder, next(iter(recipes.values())).schema, fingerprints)
    newest = newest_entry(folder)
    done = (find_snapshot(newest, digest(plan.units, f), f) for f in fingerprints)
    entry = next((entry for entry in done if entry is not None), None)
    if entry is not None:
        # no cluster is started for nothing
        return unchanged(spec.output.uri, entry)
    with _devices(spec, recipes, plan, address) as (recipe, execute):
        demand_fit(folder, recipe.schema, [recipe.fingerprint])
        outcome = drive(
            folder,
            plan.units,
            schema=recipe.schema,
            fingerprint=recipe.fingerprint,
            execute=execute,
            accept=partial(_accept, folder, spec),
        )
    if outcome.receipts is None:
        return unchanged(spec.output.uri, outcome.entry)
    return account(
        outcome.receipts,
        dataset=spec.output.uri,
        version=outcome.entry.version,
        resumed=outcome.resumed,
        seconds=time.monotonic() - started,
    )


def _accept(folder: Folder, spec: JobSpec, receipts: Sequence[Receipt]) -> None:
    """Refuse too large a quarantine, and name some of what is in it: nothing else would."""
    try:
        demand_healthy(receipts, spec.limits)
    except RunError as error:
        for row in islice(read_quarantine(folder, receipts), _EXAMPLES):
            error.add_note(f"  {row['reason']}: {row['message']}\n    {row['locator']}")
        raise


@contextmanager
def _devices(
    spec: JobSpec, recipes: Mapping[str, Recipe], plan: Plan, address: str
) -> Iterator[tuple[Recipe, Execute]]:
    """The recipe that fits the devices that are there, and how to have units done on them."""
    if address == "none":
        recipe = recipes.get(spec.model.dtype) or recipes[auto_dtype(pick_device("auto"))]
        yield recipe, partial(_in_process, recipe, plan, spec.limits.stall)
        return
    with connected(address) as cluster:
        pools = choose_pools(
            plan.rows_by_adapter,
            spec.compute.pools,
            cpus=cluster.cpus,
            gpus=cluster.gpus,
            node_cpus=cluster.node_cpus,
        )
        on_gpu = any(pool.gpus for pool in pools)
        recipe = recipes.get(spec.model.dtype) or recipes["bfloat16" if on_gpu else "float32"]
        yield recipe, partial(_on_ray, recipe, plan, spec.limits.stall, pools)


def _in_process(
    recipe: Recipe,
    plan: Plan,
    stall: float,
    units: Sequence[WorkUnit],
    revisions: Mapping[str, int],
) -> list[Receipt]:
    _tell_rest(plan, units)
    with display(rows_by_adapter(units)) as watch:
        return run_in_process(replace(recipe, revisions=revisions), units, watch=watch, stall=stall)


def _on_ray(
    recipe: Recipe,
    plan: Plan,
    stall: float,
    pools: tuple[Pool, ...],
    units: Sequence[WorkUnit],
    revisions: Mapping[str, int],
) -> list[Receipt]:
    print(describe(pools), file=sys.stderr)
    _tell_rest(plan, units)
    with display(rows_by_adapter(units)) as watch:
        return run_on_ray(
            replace(recipe, revisions=revisions), units, pools, watch=watch, stall=stall
        )


def _tell_rest(plan: Plan, units: Sequence[WorkUnit]) -> None:
    done = plan.rows - sum(unit.rows for unit in units)
    if done:
        print(f"{done:,} of {plan.rows:,} rows were done by an earlier run", file=sys.stderr)
