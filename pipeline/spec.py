"""The job spec: a YAML file in, a frozen `JobSpec` out, or one clear sentence.

Every key is checked here, before anything is listed or loaded; unknown keys, repeated keys and
YAML aliases are refused. The sentence a user reads is built from the key's path, the value found
and the key's own description, which the JSON Schema for editors shows too.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic import model_validator as validate_model

from pipeline.errors import SpecError
from pipeline.tasks import ADAPTERS, TASKS

ENCODE_VERSION = "1"
"""Raised by hand when our own preparation, pooling or writing changes an embedding's value."""

_MAX_SPEC_BYTES = 1 << 20


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSpec(_Section):
    """Which checkpoint, and how items are bounded."""

    path: str = Field(
        description="a local directory, an object-store URL, or a hub id (owner/name)", min_length=1
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


class TaskColumn(_Section):
    """Each row names its own task."""

    column: str = Field(description="the name of the column that holds each row's task")


def _one_or_many(value: object) -> str:
    return "many" if isinstance(value, list) else "one"


def _name_or_column(value: object) -> str:
    return "column" if isinstance(value, dict | TaskColumn) else "name"


Uris = Annotated[
    Annotated[str, Tag("one")] | Annotated[list[str], Tag("many")], Discriminator(_one_or_many)
]
TaskChoice = Annotated[
    Annotated[Literal[*TASKS], Tag("name")] | Annotated[TaskColumn, Tag("column")],  # type: ignore[valid-type]
    Discriminator(_name_or_column),
]


class SourceSpec(_Section):
    """Where the rows are, and which columns are what."""

    uri: Uris = Field(description="a path or object-store URL with optional globs, or a list")
    format: Literal["parquet", "webdataset", "images", "jsonl"] = Field(
        description="parquet, webdataset, images or jsonl"
    )
    id: str | None = Field(None, description="the column with each row's id")
    text: str | None = Field(None, description="the column with text, or null")
    image: str | None = Field(
        None,
        description="the column with encoded bytes, {bytes, path} structs or paths, or null",
    )
    task: TaskChoice = Field(description=f"one of {', '.join(TASKS)}, or {{column: name}}")
    keep: list[str] = Field([], description="a list of columns to carry to the output")

    @property
    def uris(self) -> tuple[str, ...]:
        """All patterns."""
        return (self.uri,) if isinstance(self.uri, str) else tuple(self.uri)

    def located(self, uris: Sequence[str]) -> "SourceSpec":
        """The same source at other locations."""
        return self.model_copy(update={"uri": list(uris)})

    @property
    def task_column(self) -> str | None:
        """The routing column, when each row names its own task."""
        return self.task.column if isinstance(self.task, TaskColumn) else None

    @property
    def maps_text(self) -> bool:
        """Whether rows may have a text; tar shards have one unless `text: null` is written."""
        return self.text is not None or self._by_default("text")

    @property
    def maps_image(self) -> bool:
        """Whether rows may have an image; tar shards do unless `image: null` is written."""
        return self.image is not None or self._by_default("image") or self.format == "images"

    def _by_default(self, field: str) -> bool:
        return self.format == "webdataset" and field not in self.model_fields_set

    @validate_model(mode="after")
    def _fits_format(self) -> "SourceSpec":
        if self.format in ("parquet", "jsonl"):
            if self.id is None:
                raise ValueError(f"id: a {self.format} source needs the column with each row's id")
            if not self.maps_text and not self.maps_image:
                raise ValueError("text and image are both null: name at least one column")
        elif self.id is not None:
            what = "the sample key" if self.format == "webdataset" else "the relative path"
            raise ValueError(f"id: {self.id!r}, but the id in a {self.format} source is {what}")
        if self.format == "images":
            for field, value in (("text", self.text), ("image", self.image), ("keep", self.keep)):
                if value:
                    raise ValueError(f"{field}: {value!r}, but a folder of images has no columns")
            if self.task_column is not None:
                raise ValueError(
                    f"task: column {self.task_column!r}, but a folder of images has no columns; "
                    "name a task"
                )
        repeated = [name for name in self.keep if self.keep.count(name) > 1]
        if repeated:
            raise ValueError(f"keep: {repeated[0]!r} is there twice")
        return self


class SingleSpec(_Section):
    """The single vectors."""

    dim: int | None = Field(
        None, ge=1, description="one of the checkpoint's matryoshka_dims, or null for the full size"
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="float32 or float16")


class MultiSpec(_Section):
    """The multi-vectors."""

    dtype: Literal["float32", "float16"] = Field("float16", description="float32 or float16")


class OutputSpec(_Section):
    """Where the dataset goes, and what it holds."""

    uri: str = Field(description="a path or object-store URL of the dataset", min_length=1)
    single: SingleSpec | None = Field(SingleSpec(), description="{dim, dtype}, or null")
    multi: MultiSpec | None = Field(None, description="{dtype}, or null")

    @validate_model(mode="after")
    def _holds_something(self) -> "OutputSpec":
        if self.single is None and self.multi is None:
            raise ValueError("single and multi are both null: nothing would be written")
        return self


class PoolSpec(_Section):
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
        return self


class ComputeSpec(_Section):
    """How much of the cluster is used, and how."""

    token_budget: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="a whole number of tokens of one forward pass, or auto"
    )
    unit_rows: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="a whole number of rows of one unit of work, or auto"
    )
    pools: dict[Literal[*ADAPTERS], PoolSpec] = Field(  # type: ignore[valid-type]
        {}, description=f"pools by adapter, of {', '.join(ADAPTERS)}"
    )


class JobSpec(_Section):
    """A job: what to embed, with what, to where."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="lower-case letters, digits, - and _, at most 63",
    )
    model: ModelSpec = Field(description="the checkpoint")
    source: Annotated[
        Annotated[SourceSpec, Tag("one")] | Annotated[list[SourceSpec], Tag("many")],
        Discriminator(_one_or_many),
    ] = Field(description="a source, or a list of them that share one dataset")
    output: OutputSpec = Field(description="the dataset")
    compute: ComputeSpec = Field(ComputeSpec(), description="the compute settings")

    @property
    def sources(self) -> tuple[SourceSpec, ...]:
        """All sources."""
        return (self.source,) if isinstance(self.source, SourceSpec) else tuple(self.source)

    @validate_model(mode="after")
    def _has_a_source(self) -> "JobSpec":
        if not self.sources:
            raise ValueError("source: the list is empty")
        return self


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """Read and check a job spec.

    Args:
        path: the YAML file.
        overrides: `key=value` settings that win over the file: the key a dotted path
            (`source.0.uri` in a list), the value YAML.

    Raises:
        SpecError: the file cannot be read, or a key is wrong.
    """
    raw = _read_yaml(Path(path))
    for override in overrides:
        _set(raw, override)
    try:
        return JobSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(_sentence(error)) from None


def fingerprint(spec: JobSpec, checkpoint_hashes: Mapping[str, str], dtype: str) -> str:
    """What decides the value of every embedding of this job, as 64 hex digits (sha256).

    Args:
        spec: the job.
        checkpoint_hashes: sha256 of the checkpoint's files by relative name: weights, adapters,
            tokenizer, configuration and the pixel bounds in it.
        dtype: what the network computes in, `auto` resolved.
    """
    parts = {
        "encode_version": ENCODE_VERSION,
        "checkpoint": dict(checkpoint_hashes),
        "prompts": {task.name: task.prefix for task in TASKS.values()},
        "max_length": spec.model.max_length,
        "max_pixels": spec.model.max_pixels,
        "dtype": dtype,
        "single": spec.output.single and spec.output.single.model_dump(),
        "multi": spec.output.multi and spec.output.multi.model_dump(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def json_schema() -> dict[str, Any]:
    """JSON Schema of a job spec, for editors."""
    return JobSpec.model_json_schema()


class _Loader(yaml.SafeLoader):
    """Plain YAML: no aliases (they can swell a small file without bound), no repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise SpecError(f"line {mark.line + 1}: YAML aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for at, key in enumerate(keys):
            if key in keys[:at]:
                line = node.value[at][0].start_mark.line + 1
                raise SpecError(f"line {line}: key {key!r} is there twice")
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read the spec {path}: {error.strerror}") from None
    if len(text) > _MAX_SPEC_BYTES:
        raise SpecError(
            f"the spec {path} has {len(text)} bytes, at most {_MAX_SPEC_BYTES} are read"
        )
    try:
        raw = yaml.load(text, _Loader)
    except SpecError as error:
        raise SpecError(f"{path}, {error}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise SpecError(f"{path} must hold keys and values: {', '.join(JobSpec.model_fields)}")
    return raw


def _set(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise SpecError(f"--set {override!r} is not of the form key=value")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise SpecError(f"--set {path}: {text!r} is not a YAML value") from None
    *parents, last = path.split(".")
    node: Any = raw
    for part in parents:
        node = _child(node, part, path)
    if isinstance(node, list):
        _child(node, last, path)
        node[int(last)] = value
    else:
        node[last] = value


def _child(node: Any, part: str, path: str) -> Any:
    """The container below, made when it is not there yet."""
    if isinstance(node, list):
        if not part.isdigit() or int(part) >= len(node):
            raise SpecError(f"--set {path}: {part!r} is not one of the {len(node)} entries")
        return node[int(part)]
    if not isinstance(node.get(part), dict | list):
        node[part] = {}
    return node[part]


def _sentence(error: ValidationError) -> str:
    """The first mistake, in one sentence: the key's path, the value, what was expected."""
    problem = error.errors()[0]
    place, fields, description = _locate(problem["loc"])
    if problem["type"] == "value_error":  # our own validators say it all but the path
        message = str(problem["ctx"]["error"])
        return f"{place}.{message}" if place else message
    if problem["type"] == "missing":
        return f"{place} is missing; expected {description}"
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        close = get_close_matches(key, fields, n=1)
        hint = f"did you mean {close[0]!r}" if close else f"the keys here are {', '.join(fields)}"
        return f"{place}: unknown key with the value {problem['input']!r}; {hint}"
    if problem["loc"] and problem["loc"][-1] == "[key]":
        return f"{place}: {problem['input']!r} is not valid; expected {description}"
    return f"{place}: {problem['input']!r} is not valid; expected {description}"


def _locate(loc: tuple[int | str, ...]) -> tuple[str, list[str], str]:
    """The dotted path, the keys at its last section, and the description of its last key.

    Pydantic's own locations also hold the tags of unions and the types it tried.
    """
    section: type[_Section] | None = JobSpec
    path, fields, description = "", list(JobSpec.model_fields), "a mapping"
    for part in loc:
        if isinstance(part, int):
            path += f".{part}"
        elif section is not None and part in section.model_fields:
            field = section.model_fields[part]
            path += f".{part}"
            description = field.description or description
            fields = list(section.model_fields)
            section = _section_in(field.annotation)
        elif section is PoolSpec and part in ADAPTERS:
            path += f".{part}"
        elif part == loc[-1] and part not in ("one", "many", "name", "[key]"):
            if section is not None:
                fields = list(section.model_fields)
                path += f".{part}"
            elif path.rpartition(".")[2] == "pools":
                path += f".{part}"
    return path.removeprefix("."), fields, description


def _section_in(annotation: Any) -> type[_Section] | None:
    """The section a field holds, below any union, list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, _Section):
        return annotation
    found = (_section_in(part) for part in get_args(annotation))
    return next((section for section in found if section is not None), None)
