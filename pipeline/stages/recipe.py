"""Recipe: everything a worker must know of a job, and the stages it makes of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.copies import local_copy
from pipeline.errors import RunError
from pipeline.fingerprint import fingerprint
from pipeline.folder import Folder
from pipeline.job_file import located
from pipeline.manifest import Part
from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.nightly.base import base_rows, places_in
from pipeline.schema import output_schema, vector_fields
from pipeline.software import installed
from pipeline.source_spec import SourceSpec
from pipeline.spec import JobSpec, LimitsSpec
from pipeline.stages.again import Earlier
from pipeline.stages.bounds import Bounds
from pipeline.stages.link import Linker
from pipeline.stages.plan import Plan
from pipeline.stages.scan import scan
from pipeline.stages.selection import select
from pipeline.stages.sink import Sink
from pipeline.stages.source import read_units
from pipeline.stages.weigh import Weight, total, weigh
from pipeline.storage import use_stores
from pipeline.stores import StoreSpec
from pipeline.work import Receipt, WorkUnit

if TYPE_CHECKING:
    from pipeline.model.processor import Processor
    from pipeline.stages.embed import Embed
    from pipeline.stages.prepare import Prepare

CACHE = Path("~/.cache/nightjar/checkpoints").expanduser()
"""Copies of checkpoints from object storage, one for each host."""


@cache
def _software() -> str:
    return installed(["nightjar"]).get("nightjar", "from a folder")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a worker must know of a job; small enough to send to each of them."""

    checkpoint: str
    """The spec's model.path, absolute when local."""
    checkpoint_hashes: Mapping[str, str]
    """sha256 of its files, by name: a worker refuses to load any other."""
    max_length: int
    """Tokens a text is cut to."""
    max_pixels: int | None
    """Bound of a resized image; None for the checkpoint's own."""
    dtype: str
    """What the network computes in, `auto` resolved."""
    token_budget: int | None
    """Of one forward pass; None for the default of the device."""
    compiled: bool | None
    """Whether torch compiles the layers; None for the default of the device."""
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
        settled = _settled(spec, checkpoint)
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
        anywhere, budget = located(spec), spec.compute.token_budget
        return cls(
            checkpoint=anywhere.model.path,
            checkpoint_hashes=checkpoint.hashes,
            max_length=spec.model.max_length,
            max_pixels=spec.model.max_pixels,
            dtype=dtype,
            token_budget=budget if isinstance(budget, int) else None,
            compiled=None if spec.compute.compile == "auto" else spec.compute.compile,
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

    def base(self, schema: pa.Schema, parts: Sequence[tuple[int, Part]]) -> pa.Table:
        """The rows of numbered parts of a snapshot with that schema: see `base_rows`."""
        self._begin()
        return base_rows(Folder(self.output), schema, parts)

    def places(self, wanted: pa.Array, parts: Sequence[tuple[int, Part]]) -> pa.Table:
        """Where in the files of numbered parts contents are: see `places_in`."""
        self._begin()
        return places_in(Folder(self.output), wanted, parts)

    def weigh(self, units: Sequence[WorkUnit]) -> Weight:
        """What embedding units of one segment and adapter would be for the model."""
        prepare, patch = self.prepare(expendable=False), open_model(self.checkpoint).patch_size
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

        hashes = tuple((n, h) for n, h in self.checkpoint_hashes.items() if n.endswith(".json"))
        bound = self.limits.image_pixels
        processor = _processor(self.checkpoint, hashes, self.max_length, self.max_pixels, bound)
        bounds = Bounds(
            cpu_seconds=self.limits.decode_seconds if expendable else None,
            memory=self.limits.decode_memory,
        )
        return Prepare(processor, self.id_type, self.kept, bounds)

    def embed(self, adapter: str, device: str) -> "Embed":
        """The embed stage, with the weights loaded and an adapter merged."""
        self._begin()
        # and only an actor needs the network and its library
        from pipeline.model.budget import SMALLEST
        from pipeline.model.engine import Engine
        from pipeline.stages.embed import Embed

        checkpoint = open_model(self.checkpoint)
        checkpoint.demand_same(self.checkpoint_hashes)
        engine = Engine(
            checkpoint,
            adapter,
            device=device,
            dtype=self.dtype,
            token_budget=self.token_budget,
            compiled=self.compiled,
        )
        engine.warm_up()

        # a budget of its own is not worth measuring for single items
        exact = partial(
            Engine,
            checkpoint,
            device=device,
            dtype="float32",
            token_budget=SMALLEST,
            compiled=False,
        )
        return Embed(engine, exact, self.id_type, self.kept, self.vectors)

    def sink(self) -> Sink:
        """The sink stage."""
        self._begin()
        folder = Folder(self.output)
        return Sink(folder, self.schema, self.fingerprint, self.revisions, self._earlier)

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


def open_model(path: str) -> Checkpoint:
    """Open a checkpoint by the spec's model.path: a directory, an object-store URL or a hub id.

    Raises:
        CheckpointError: see `pipeline.model.checkpoint.open_checkpoint`.
        SourceError: there is nothing at the URL.
    """
    return open_checkpoint(local_copy(path, CACHE) if "://" in path else path)


@cache
def _processor(
    path: str,
    hashes: tuple[tuple[str, str], ...],
    max_length: int,
    max_pixels: int | None,
    image_pixels: int,
) -> "Processor":
    """Read once in each process. Only the files it reads are held against their hashes."""
    from pipeline.model.processor import Processor

    checkpoint = open_model(path)
    checkpoint.demand_same(dict(hashes))
    return Processor(
        checkpoint, max_length=max_length, max_pixels=max_pixels, image_pixels=image_pixels
    )


def _settled(spec: JobSpec, checkpoint: Checkpoint) -> JobSpec:
    """The job with what it leaves to the checkpoint written out: null and the value are one."""
    single = spec.output.single
    if single is not None:
        sizes = [checkpoint.demand_dim(dim, "output.single.dim") for dim in single.dims]
        dims = sizes if isinstance(single.dim, list) else sizes[0]
        single = single.model_copy(update={"dim": dims})
    bound = spec.model.max_pixels or checkpoint.pixel_bounds[1]
    return spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"max_pixels": bound}),
            "output": spec.output.model_copy(update={"single": single}),
        }
    )
