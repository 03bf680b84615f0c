"""`nightjar embed`: a corpus into a committed Arrow dataset.

Everything a user can get wrong is checked before a cluster is started or a weight is loaded: the
spec, the checkpoint's files, the source, the output. A second run of the same work finds its
snapshot and does nothing.
"""

import shutil
import sys
import time
from collections.abc import Mapping

from jobs.progress import display
from pipeline.commit import commit, demand_fit, digest, find_snapshot, reconcile
from pipeline.dataset import LogEntry, list_versions
from pipeline.errors import RunError
from pipeline.model.device import auto_dtype, pick_device
from pipeline.model.processor import Processor
from pipeline.report import RunReport, account, unchanged
from pipeline.spec import JobSpec
from pipeline.stages.cluster import connected
from pipeline.stages.flow import Recipe, open_model, run_in_process
from pipeline.stages.plan import Plan, plan_work
from pipeline.stages.ray_flow import run_on_ray
from pipeline.stages.route import choose_pools, describe
from pipeline.storage import Folder
from pipeline.work import Receipt, tally


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
    print(f"next:    {command} show {report.dataset}")


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
    checkpoint = open_model(spec.model.path)
    Processor(checkpoint, max_length=spec.model.max_length, max_pixels=spec.model.max_pixels)
    plan = plan_work(spec, spec.model.max_pixels or checkpoint.pixel_bounds[1])
    checkpoint.demand_adapters(plan.rows_by_adapter)
    # `auto` is settled by the devices that are found; until then either may be meant
    dtypes = ("float32", "bfloat16") if spec.model.dtype == "auto" else (spec.model.dtype,)
    recipes = {dtype: Recipe.of(spec, checkpoint, plan, dtype) for dtype in dtypes}
    folder = Folder(spec.output.uri)
    folder.demand_create()
    parent = max(list_versions(folder), default=0)
    entry = _done_before(folder, recipes, plan)
    if entry is not None:
        return unchanged(spec.output.uri, entry)
    recipe, receipts = _execute(spec, recipes, plan, folder, address)
    receipts = reconcile(plan.units, receipts, recipe.fingerprint)
    if not any(receipt.data for receipt in receipts):
        reasons = ", ".join(name for name, _ in tally(receipts).quarantined.most_common())
        raise RunError(f"all {plan.rows} rows were quarantined ({reasons}); nothing was committed")
    entry = commit(
        folder,
        schema=recipe.schema,
        fingerprint=recipe.fingerprint,
        source_digest=digest(plan.units, recipe.fingerprint),
        receipts=receipts,
        parent=parent,
    )
    return account(
        receipts,
        dataset=spec.output.uri,
        version=entry.version,
        seconds=time.monotonic() - started,
    )


def _done_before(folder: Folder, recipes: Mapping[str, Recipe], plan: Plan) -> LogEntry | None:
    fingerprints = [recipe.fingerprint for recipe in recipes.values()]
    demand_fit(folder, next(iter(recipes.values())).schema, fingerprints)
    found = (find_snapshot(folder, digest(plan.units, f), f) for f in fingerprints)
    return next((entry for entry in found if entry is not None), None)


def _execute(
    spec: JobSpec, recipes: Mapping[str, Recipe], plan: Plan, folder: Folder, address: str
) -> tuple[Recipe, list[Receipt]]:
    if address == "none":
        recipe = recipes.get(spec.model.dtype) or recipes[auto_dtype(pick_device("auto"))]
        demand_fit(folder, recipe.schema, [recipe.fingerprint])
        with display(plan.rows_by_adapter) as watch:
            return recipe, run_in_process(recipe, plan.units, watch)
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
        demand_fit(folder, recipe.schema, [recipe.fingerprint])
        print(describe(pools), file=sys.stderr)
        with display(plan.rows_by_adapter) as watch:
            return recipe, run_on_ray(recipe, plan.units, pools, watch)
