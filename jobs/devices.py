"""Where a job is done: on which devices, in this process or on a Ray cluster."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.accounts import Account
from jobs.progress import CHECKED, display
from pipeline.manifest import Part
from pipeline.model.device import auto_dtype, pick_device
from pipeline.nightly.base import Place, first_places, places_in
from pipeline.nightly.compare import Differences, Sides
from pipeline.nightly.queries import Query
from pipeline.spec import JobSpec
from pipeline.stages.cluster import LOCAL, connected
from pipeline.stages.compare import compare_in_process, files_of
from pipeline.stages.each import each_on_ray, once_on_ray
from pipeline.stages.flow import opened_together, run_in_process
from pipeline.stages.inspection import inspect_nodes
from pipeline.stages.metrics import put_up_exported
from pipeline.stages.plan import Plan
from pipeline.stages.ray_compare import compare_on_ray
from pipeline.stages.ray_flow import run_on_ray
from pipeline.stages.recipe import Recipe
from pipeline.stages.route import choose_pools, describe
from pipeline.stages.series import Terms
from pipeline.stages.told import Progress
from pipeline.work import Receipt, WorkUnit, rows_by_adapter

Thing = TypeVar("Thing")
Result = TypeVar("Result")


class Each(Protocol):
    """As `map`, perhaps on many hosts at once."""

    def __call__(
        self, call: Callable[[Thing], Result], things: Iterable[Thing], /
    ) -> Iterable[Result]:
        """The results, in order."""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What a job is done on, and how."""

    recipe: Recipe
    """That fits them."""
    account: Account
    """Told what took how long."""
    run: Callable[..., list[Receipt]]
    """Embeds units: `run_in_process` or `run_on_ray`."""
    each: Each
    """Does what needs no device."""
    match: Callable[[Recipe, Sides], Differences]
    """Compares a source with a snapshot: `compare_in_process` or `compare_on_ray`."""
    ask: Callable[[Sequence[Query]], NDArray[np.float32]]
    """Embeds queries on one device: [queries, size]."""
    inspect: Callable[[Recipe, Sequence[WorkUnit]], int] | None = None
    """Asks every node whether it can take part; None where there is none but this one."""

    def execute(
        self,
        again: frozenset[str],
        units: Sequence[WorkUnit],
        revisions: Mapping[str, int],
        earlier: Mapping[str, Receipt],
    ) -> list[Receipt]:
        """Embed or link units, as `driver.Execute`; `again` are the reasons to try again."""
        recipe = replace(self.recipe, revisions=revisions, earlier=earlier, again=again)
        linked = opened_together([unit for unit in units if unit.links is not None])
        with self.account.phase("link"):
            receipts = [receipt for some in self.each(recipe.link, linked) for receipt in some]
        embedded = [unit for unit in units if unit.links is None]
        if embedded:
            self._inspect(embedded)
            told = [Progress()]

            def watch(progress: Progress) -> None:
                told[0] = progress
                show(progress)

            try:
                with self.account.phase("embed"), display(rows_by_adapter(embedded)) as show:
                    receipts += self.run(recipe, embedded, watch=watch)
            finally:
                self.account.add(told[0])
        return receipts

    def _inspect(self, units: Sequence[WorkUnit]) -> None:
        if self.inspect is not None:
            with self.account.phase("inspect"):
                nodes = self.inspect(self.recipe, units)
            print(
                f"{CHECKED}: {nodes} node{'s' * (nodes != 1)} can read the source and the "
                "checkpoint and write the output",
                file=sys.stderr,
            )

    def compare(self, sides: Sides) -> Differences:
        """Say how the two sides differ."""
        return self.match(self.recipe, sides)

    def places(self, parts: Sequence[Part], contents: pa.ChunkedArray) -> dict[bytes, Place]:
        """Where vectors of contents are, of those that are anywhere in the files of some parts."""
        wanted = contents.drop_null().unique()
        groups = files_of(parts) if len(wanted) else ()
        look = partial(self.recipe.in_dataset, partial(places_in, wanted))
        return first_places(parts, self.each(look, groups))


@contextmanager
def devices(
    spec: JobSpec, plan: Plan, recipes: Mapping[str, Recipe], address: str, account: Account
) -> Iterator[Devices]:
    """The devices that an address leads to.

    Args:
        spec: of the job.
        plan: likewise.
        recipes: by dtype; which of them is meant by `auto` is for the devices to say.
        address: which Ray, or `none`.
        account: of the run.

    Raises:
        RunError: no Ray answers there.
    """
    if address == "none":
        recipe = recipes.get(spec.model.dtype) or recipes[auto_dtype(pick_device("auto"))]
        yield Devices(
            recipe=recipe,
            account=account,
            run=partial(run_in_process, stall=spec.limits.stall),
            each=map,
            match=compare_in_process,
            ask=partial(recipe.ask, device="auto"),
        )
        return
    with connected(address) as found:
        cluster = found.grown(spec.compute.grows_to)
        pools = choose_pools(
            plan.rows_by_adapter,
            spec.compute.pools,
            cpus=cluster.cpus,
            gpus=cluster.gpus,
            node_cpus=cluster.node_cpus,
        )
        print(describe(pools), file=sys.stderr)
        on_gpu = any(pool.gpus for pool in pools)
        recipe = recipes.get(spec.model.dtype) or recipes["bfloat16" if on_gpu else "float32"]
        ask = partial(recipe.ask, device="cuda" if on_gpu else "cpu")
        board = partial(put_up_exported, _terms(spec, account))
        yield Devices(
            recipe=recipe,
            account=account,
            run=partial(run_on_ray, pools=pools, stall=spec.limits.stall, make_board=board),
            each=each_on_ray,
            match=partial(compare_on_ray, stall=spec.limits.stall),
            ask=partial(once_on_ray, ask, pool=pools[0], stall=spec.limits.stall),
            inspect=None if address == LOCAL else inspect_nodes,
        )


def _terms(spec: JobSpec, account: Account) -> Terms:
    return Terms(
        job=spec.name,
        price=account.price,
        quarantine_share=spec.limits.quarantine_share,
        stall=spec.limits.stall,
    )
