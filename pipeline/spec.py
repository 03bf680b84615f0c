"""The job spec: the public contract of a job.

Frozen models, unknown keys refused. Each key's description says what is expected: it is what an
editor shows from the JSON Schema, and the end of the sentence a user reads after a mistake.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag
from pydantic import model_validator as validate_model

from pipeline.section import Section
from pipeline.source_spec import AdapterName, PlainUri, SourceSpec, one_or_many
from pipeline.stores import StoreSpec
from pipeline.tasks import ADAPTERS


class ModelSpec(Section):
    """Which checkpoint, and how items are bounded."""

    path: PlainUri = Field(
        description="a local directory, an object-store URL, or a hub id (owner/name)"
    )
    max_length: int = Field(
        32768, ge=1, le=32768, description="a whole number of tokens from 1 to 32768"
    )
    max_pixels: int | None = Field(
        None, ge=1, description="a whole number of pixels, or null for the checkpoint's own bound"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto, float32 or bfloat16"
    )

    def located(self, absolute: Callable[[str], str]) -> "ModelSpec":
        """The same with a location that holds from any working directory; a hub id stays one."""
        if not Path(self.path).expanduser().is_dir() and not self.path.startswith(("/", ".", "~")):
            return self
        return self.model_copy(update={"path": absolute(self.path)})


_Dim = Annotated[int, Field(ge=1)]
Dims = Annotated[
    Annotated[_Dim, Tag("one")] | Annotated[list[_Dim], Field(min_length=1), Tag("many")],
    Discriminator(one_or_many),
]


class SingleSpec(Section):
    """The single vectors."""

    dim: Dims | None = Field(
        None,
        description="one of the checkpoint's matryoshka_dims, a list of them for a column each, or "
        "null for the full size",
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="float32 or float16")

    @property
    def dims(self) -> tuple[int | None, ...]:
        """All sizes; None is the full one."""
        return tuple(self.dim) if isinstance(self.dim, list) else (self.dim,)

    @validate_model(mode="after")
    def _is_without_repeats(self) -> "SingleSpec":
        repeated = [dim for dim in self.dims if self.dims.count(dim) > 1]
        if repeated:
            raise ValueError(f"dim: {repeated[0]} is there twice")
        return self


class MultiSpec(Section):
    """The multi-vectors."""

    dtype: Literal["float32", "float16"] = Field("float16", description="float32 or float16")


class OutputSpec(Section):
    """Where the dataset goes, and what it holds."""

    uri: PlainUri = Field(description="a path or object-store URL of the dataset")
    single: SingleSpec | None = Field(SingleSpec(), description="{dim, dtype}, or null")
    multi: MultiSpec | None = Field(None, description="{dtype}, or null")

    @validate_model(mode="after")
    def _holds_something(self) -> "OutputSpec":
        if self.single is None and self.multi is None:
            raise ValueError("single and multi are both null: nothing would be written")
        return self


class PoolSpec(Section):
    """The actors of one adapter."""

    min: int = Field(1, ge=1, description="a whole number of actors, at least 1")
    max: int | None = Field(None, ge=1, description="a whole number of actors, or null")
    gpus: float | None = Field(
        None, ge=0, description="GPUs of each actor, a fraction allowed, or null to choose"
    )
    cpus: float | None = Field(
        None, ge=0, description="CPUs of each actor, a fraction allowed, or null to choose"
    )

    @validate_model(mode="after")
    def _is_ordered(self) -> "PoolSpec":
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max: {self.max} is below min, {self.min}")
        if self.gpus is not None and self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus: {self.gpus}, expected a fraction below 1 or a whole number")
        return self


class GrowthSpec(Section):
    """How far a cluster's autoscaler may go."""

    gpus: float | None = Field(
        None, ge=0, description="GPUs of the whole cluster, or null for those it has"
    )
    cpus: float | None = Field(
        None, ge=0, description="CPUs of the whole cluster, or null for those it has"
    )


class ComputeSpec(Section):
    """How much of the cluster is used, and how."""

    token_budget: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="a whole number of tokens of one forward pass, or auto"
    )
    compile: Literal["auto"] | bool = Field(
        "auto",
        description="true or false: whether torch compiles the layers, or auto for yes on GPUs",
    )
    unit_rows: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="a whole number of rows of one unit of work, or auto"
    )
    pools: dict[AdapterName, PoolSpec] = Field(
        {},
        description=f"pools by adapter, of {', '.join(ADAPTERS)} and those of your own",
        json_schema_extra={"additionalProperties": False},
    )
    grows_to: GrowthSpec = Field(
        GrowthSpec(), description="{gpus, cpus}: how far the cluster's autoscaler may go"
    )


class LimitsSpec(Section):
    """How far one item may go before it is set aside, and a run before it is stopped."""

    quarantine_share: float = Field(
        0.01, ge=0, le=1, description="the largest share of items set aside, from 0 to 1"
    )
    duplicate_ids: Literal["refuse", "keep"] = Field(
        "refuse", description="refuse or keep: what to do about rows of the same id and task"
    )
    stall: float = Field(
        1800.0, gt=0, description="seconds without any progress after which a run is given up"
    )
    image_pixels: int = Field(
        40_000_000,
        ge=1,
        le=178_956_970,  # where Pillow refuses whatever we say
        description="the largest image that is decoded, in pixels, at most 178956970",
    )
    decode_seconds: int = Field(
        30, ge=1, description="a whole number of CPU seconds that preparing one item may take"
    )
    decode_memory: int = Field(
        2 << 30,
        ge=1 << 20,
        description="bytes of memory that preparing one item may take, at least 1048576",
    )


_Limit = Annotated[float, Field(ge=0)]


class GateSpec(Section):
    """What a snapshot must pass before readers get it; null for a limit switches it off."""

    shrink: Annotated[float, Field(ge=0, le=1)] | None = Field(
        0.2, description="the largest share of rows that may be lost, from 0 to 1, or null"
    )
    growth: _Limit | None = Field(
        1.0, description="the largest growth, as a share of the rows there are, or null"
    )
    near_identical: Annotated[float, Field(ge=0, le=1)] | None = Field(
        0.2, description="the largest share of new vectors as good as equal, from 0 to 1, or null"
    )
    shift: _Limit | None = Field(
        0.5,
        description="how far new vectors may be from earlier ones, where 1 is as far as any two of "
        "those are from each other, or null",
    )
    queries: PlainUri | None = Field(
        None, description="a JSONL file of queries and the ids relevant to each, or null"
    )
    quality_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        0.02, description="how much nDCG@10 or recall@10 of the queries may fall, from 0 to 1"
    )


class NightlySpec(Section):
    """What a night does."""

    on_gone: Literal["delete", "keep"] = Field(
        "delete", description="delete or keep: what to do about rows that the source has no more"
    )
    publish: Literal["auto", "manual"] = Field(
        "auto", description="auto or manual: whether readers get what has passed the gate"
    )
    gate: GateSpec = Field(GateSpec(), description="what a snapshot must pass to be published")


class JobSpec(Section):
    """A job: what to embed, with what, to where."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="lower-case letters, digits, - and _, at most 63",
    )
    model: ModelSpec = Field(description="the checkpoint")
    source: Annotated[
        Annotated[SourceSpec, Tag("one")] | Annotated[list[SourceSpec], Tag("many")],
        Discriminator(one_or_many),
    ] = Field(description="a source, or a list of them that share one dataset")
    output: OutputSpec = Field(description="the dataset")
    storage: list[StoreSpec] = Field(
        [], description="a list of object stores and how to reach them"
    )
    compute: ComputeSpec = Field(ComputeSpec(), description="the compute settings")
    limits: LimitsSpec = Field(LimitsSpec(), description="how far items and the run may go")
    nightly: NightlySpec = Field(NightlySpec(), description="the settings of `nightjar nightly`")

    @property
    def sources(self) -> tuple[SourceSpec, ...]:
        """All sources."""
        return (self.source,) if isinstance(self.source, SourceSpec) else tuple(self.source)

    @validate_model(mode="after")
    def _has_a_source(self) -> "JobSpec":
        if not self.sources:
            raise ValueError("source: the list is empty")
        own = [task.adapter for source in self.sources for task in source.tasks.values()]
        known = list(dict.fromkeys((*ADAPTERS, *own)))
        for name in self.compute.pools:
            if name not in known:
                raise ValueError(
                    f"compute.pools: {name!r} is no adapter that a source names; expected some of "
                    f"{', '.join(known)}"
                )
        return self


def json_schema() -> dict[str, Any]:
    """JSON Schema of a job spec, for editors."""
    return JobSpec.model_json_schema()
