"""Recipe: everything a worker must know of a job, and the stages it makes of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.copies import Fetched
from pipeline.errors import RunError
from pipeline.fingerprint import fingerprint
from pipeline.folder import Folder
from pipeline.job_file import located
from pipeline.model.checkpoint import Checkpoint
from pipeline.nightly.queries import Query
from pipeline.schema import output_schema, single_types, vector_fields
from pipeline.software import installed
from pipeline.source_spec import SourceSpec
from pipeline.spec import JobSpec, LimitsSpec
from pipeline.stages.again import Earlier
from pipeline.stages.bounds import Bounds
from pipeline.stages.link import Linker
from pipeline.stages.loaded import ModelRecipe
from pipeline.stages.opened import settle_by
from pipeline.stages.plan import Plan
from pipeline.stages.scan import scan
from pipeline.stages.selection import select
from pipeline.stages.sink import Sink
from pipeline.stages.source import read_units
from pipeline.stages.weigh import Weight, total, weigh
from pipeline.storage import use_stores
from pipeline.stores import StoreSpec
from pipeline.tasks import task_named, tasks_of
from pipeline.work import Receipt, WorkUnit

if TYPE_CHECKING:
    from pipeline.model.processor import PreparedItem
    from pipeline.stages.embed import Embed
    from pipeline.stages.prepare import Prepare

Thing = TypeVar("Thing")
Result = TypeVar("Result")


@cache
def _software() -> str:
    return installed(["nightjar"]).get("nightjar", "from a folder")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a worker must know of a job; small enough to send to each of them."""

    model: ModelRecipe
    """What the model is, and how a worker comes by it."""
    limits: LimitsSpec
    """How far one item may go."""
    sources: tuple[SourceSpec, ...]
    """All sources of the spec."""
    kept: tuple[pa.Field, ...]
    """The columns carried to the output."""
    vectors: tuple[pa.Field, ...]
    """The vector columns wanted."""
    schema: pa.Schema
    """Of the output."""
    output: str
    """Root of the dataset."""
    fingerprint: str
    """Of every embedding."""
    stores: tuple[StoreSpec, ...] = ()
    """How object stores are reached; secrets are named, and resolved where they are used."""
    software: str = field(default_factory=_software)
    """The version of Nightjar that made it."""
    revisions: Mapping[str, int] = field(default_factory=dict)
    """Of the records of units that are done again, by key; 0 for the others."""
    earlier: Mapping[str, Receipt] = field(default_factory=dict)
    """Of units of which only what was set aside is tried again, by key."""
    again: frozenset[str] = frozenset()
    """The reasons for which it was set aside."""

    @classmethod
    def of(cls, spec: JobSpec, checkpoint: Checkpoint, plan: Plan, dtype: str) -> "Recipe":
        """The recipe of a job.

        Args:
            spec: the job.
            checkpoint: opened.
            plan: of the job.
            dtype: what the network computes in, `auto` resolved.

        Raises:
            SpecError: a dim the checkpoint does not have, or a kept column with a name of ours.
        """
        settled = settle_by(spec, checkpoint)
        single, multi = settled.output.single, settled.output.multi
        made_by = fingerprint(settled, checkpoint.hashes, dtype)
        vectors = vector_fields(
            dim=None if single is None else single.dim,
            single_dtype="" if single is None else single.dtype,
            multi_dim=None if multi is None else checkpoint.multi_vector_dim,
            multi_dtype="" if multi is None else multi.dtype,
        )
        described = {"fingerprint": made_by, "compute_dtype": dtype}
        if single is not None:
            described |= {"dim": ",".join(map(str, single.dims)), "dtype": single.dtype}
        if multi is not None:
            described |= {"multi_dim": str(checkpoint.multi_vector_dim), "multi_dtype": multi.dtype}
        anywhere = located(spec)
        return cls(
            model=ModelRecipe.of(spec, checkpoint, dtype),
            limits=spec.limits,
            sources=anywhere.sources,
            kept=plan.kept,
            vectors=tuple(vectors),
            schema=output_schema(plan.id_type, plan.kept, vectors, described),
            output=anywhere.output.uri,
            fingerprint=made_by,
            stores=tuple(spec.storage),
        )

    @property
    def id_type(self) -> pa.DataType:
        """Of every id."""
        return self.schema.field("id").type

    def read(self, units: Sequence[WorkUnit]) -> Iterator[tuple[WorkUnit, pa.Table]]:
        """The source stage, on units of one segment and adapter."""
        self._begin()
        source = self.sources[units[0].segment.source]
        for unit, rows in read_units(source, units, self.id_type, self.kept):
            earlier = self._earlier(unit.key(self.fingerprint))
            chosen = rows if unit.items is None else select(rows, unit.items)
            yield unit, chosen if earlier is None else earlier.rows(chosen)

    def scan(self, numbered: Sequence[tuple[int, WorkUnit]]) -> pa.Table:
        """The items of units of one segment and adapter, each with its number: see `scan`."""
        read = self.read([unit for _, unit in numbered])
        return pa.concat_tables(
            scan(rows, number, unit.shard, self.schema)
            for (number, _), (unit, rows) in zip(numbered, read, strict=True)
        )

    def in_dataset(self, call: Callable[[Folder, Thing], Result], thing: Thing) -> Result:
        """What a call makes of something in the dataset."""
        self._begin()
        return call(Folder(self.output), thing)

    def weigh(self, units: Sequence[WorkUnit]) -> Weight:
        """What embedding units of one segment and adapter would be for the model."""
        prepare, patch = self.prepare(expendable=False), self.model.processor().patch_size
        return total(weigh(prepare(rows), patch) for _, rows in self.read(units))

    def link(self, units: Sequence[WorkUnit]) -> list[Receipt]:
        """The link stage, on units with links, of one segment and adapter."""
        self._begin()
        linker = Linker(Folder(self.output), self.schema, self.fingerprint, self.revisions)
        return [linker(rows, unit) for unit, rows in self.read(units)]

    def prepare(self, expendable: bool = True) -> "Prepare":
        """The prepare stage.

        Args:
            expendable: whether this process may be killed for an item that takes too long.
        """
        self._begin()
        # torch takes seconds to import: workers that compare, link or write do without
        from pipeline.stages.prepare import Prepare

        bounds = Bounds(
            cpu_seconds=self.limits.decode_seconds if expendable else None,
            memory=self.limits.decode_memory,
        )
        return Prepare(self.model.processor(), self.id_type, self.kept, bounds)

    def embed(
        self,
        adapter: str,
        device: str,
        actor: str | None = None,
        threads: int | None = None,
        fetched: Fetched | None = None,
    ) -> "Embed":
        """The embed stage, with the weights loaded and an adapter merged.

        Args:
            adapter: the one that is merged first.
            device: a torch device, or auto.
            actor: the id of the one who asks, in a cluster.
            threads: of torch, on a CPU; None for as many as it has.
            fetched: told how long a copy of the checkpoint took, where there was none here.
        """
        self._begin()
        engine, exact = self.model.load(adapter, device, threads=threads, fetched=fetched)
        # only an actor needs the network and its library
        from pipeline.model.device import name_of
        from pipeline.stages.canaries import TOLERANCE, Canaries
        from pipeline.stages.embed import Embed

        canaries = Canaries(
            folder=Folder(self.output),
            fingerprint=self.fingerprint,
            items=self.canaries,
            tolerance=TOLERANCE[self.model.dtype],
            device=name_of(engine.device),
            actor=actor,
        )
        return Embed(engine, exact, canaries, self.id_type, self.kept, self.vectors)

    def ask(self, queries: Sequence[Query], device: str) -> NDArray[np.float32]:
        """The largest single vectors of some queries, [queries, size]."""
        self._begin()
        from pipeline.stages.ask import ask

        adapter = task_named(queries[0].task).adapter
        size = max(kind.list_size for kind in single_types(self.schema).values())
        engine = self.model.engine(self.model.open(), device, adapter)
        return ask(queries, self.model.processor(), engine, size)

    def sink(self) -> Sink:
        """The sink stage."""
        self._begin()
        folder = Folder(self.output)
        return Sink(folder, self.schema, self.fingerprint, self.revisions, self._earlier)

    def canaries(self, adapter: str) -> "Mapping[str, PreparedItem]":
        """The canaries of an adapter, by name."""
        from pipeline.model.canary_items import canary_items

        return canary_items(self.model.processor(), tasks_of(adapter)[0])

    def _begin(self) -> None:
        """Make this process one that can follow the recipe.

        Raises:
            RunError: another version of Nightjar is installed here.
        """
        here = _software()
        if here != self.software:
            raise RunError(
                f"a worker has Nightjar {here}, and the driver {self.software}: install one "
                "version on every node"
            )
        use_stores(self.stores)

    def _earlier(self, unit: str) -> Earlier | None:
        receipt = self.earlier.get(unit)
        return None if receipt is None else Earlier(Folder(self.output), receipt, self.again)
