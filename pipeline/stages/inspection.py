"""Inspection: every node of a cluster is asked whether it can take part, before it has to.

A node that lacks a secret, reaches another disk or has another version of Nightjar fails some units
of a run, late, and only when it happens to get one. Asked first, it is one sentence that names it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import NightjarError, RunError, SourceError, UserError
from pipeline.folder import Folder
from pipeline.log import JOB
from pipeline.stages.board import tellable
from pipeline.stages.recipe import Recipe
from pipeline.storage import read_object
from pipeline.work import WorkUnit

_SECONDS = 120.0
"""For which nodes are waited for; nothing is known to be wrong with one that is too busy."""
_CONFIG = "config.json"


def inspect_nodes(recipe: Recipe, units: Sequence[WorkUnit]) -> int:
    """Have every node look whether it reaches what a job needs.

    Args:
        recipe: of the job, which is kept beside its dataset.
        units: what is to be done.

    Returns:
        how many nodes said that they do.

    Raises:
        UserError: one does not; the sentence names it.
        RunError: one has another version of Nightjar.
    """
    firsts = {unit.segment.source: unit.segment.shard.uri for unit in reversed(units)}
    objects = [*firsts.values()]
    model = recipe.model.path
    if model.startswith("/") or "://" in model:
        objects.append(f"{model}/{_CONFIG}")
    look = partial(recipe.in_dataset, partial(_reach, objects), Folder(recipe.output).get(JOB))
    task = ray.remote(num_cpus=0, max_retries=0)(_told)
    asked = {
        task.options(scheduling_strategy=_only_on(node["NodeID"])).remote(look): node
        for node in ray.nodes()
        if node["Alive"]
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS)
    return sum(_is_well(reference, asked[reference]) for reference in answered)


def _only_on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _reach(objects: Sequence[str], folder: Folder, job: bytes) -> None:
    for uri in objects:
        try:
            read_object(uri, 0, 1)
        except OSError as error:
            raise SourceError(f"{uri!r} cannot be read there: {error}") from error
    try:
        kept = folder.get(JOB)
    except FileNotFoundError:
        kept = b""
    if kept != job:
        raise SourceError(
            f"{folder.uri!r} is another folder there; on a cluster output.uri must be an object "
            "store, or a disk that all nodes share"
        )


def _told(look: Any) -> NightjarError | None:
    try:
        look()
    except Exception as error:
        # Ray hands on an exception as text
        return tellable(error)
    return None


def _is_well(reference: Any, node: dict[str, Any]) -> bool:
    try:
        error: NightjarError | None = ray.get(reference)
    except RayError:
        # it is gone: whoever loses a node in mid-run goes on too
        return False
    if error is None:
        return True
    kind = UserError if isinstance(error, UserError) else RunError
    raise kind(f"node {node['NodeManagerAddress']}: {error}; nothing was embedded") from error
