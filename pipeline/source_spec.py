"""The source of a job spec: where the rows are, and which columns are what."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic import model_validator as validate_model
from pydantic_core import PydanticCustomError

from pipeline.section import Section
from pipeline.stores import has_password
from pipeline.tasks import (
    ADAPTER_PATTERN,
    ADAPTERS,
    EXPECTED,
    TASKS,
    Task,
    find_task,
    task_named,
    tasks_of,
)
from pipeline.web import HOST_PATTERN


def _without_password(uri: str) -> str:
    if has_password(uri):
        raise PydanticCustomError(
            "field", "there is a password in the URL; name it in storage instead"
        )
    return uri


PlainUri = Annotated[str, Field(min_length=1), AfterValidator(_without_password)]
"""A URL or path that shows no password."""


def _task(name: str) -> str:
    if find_task(name) is None:
        sentence = "{name} is not a task; expected {expected}"
        raise PydanticCustomError("field", sentence, {"name": repr(name), "expected": EXPECTED})
    return name


TaskName = Annotated[str, AfterValidator(_task)]
"""The name of a task, one's own included."""
AdapterName = Annotated[str, Field(pattern=f"^{ADAPTER_PATTERN}$")]


class TaskColumn(Section):
    """Each row names its own task."""

    column: str = Field(description="the name of the column that holds each row's task")
    adapters: list[AdapterName] = Field(
        [], description="a list of adapters of your own, whose tasks rows may name too"
    )


class OwnTask(Section):
    """The task of an adapter that somebody has trained."""

    adapter: AdapterName = Field(description="its name in the checkpoint, in lower case")
    prompt: Literal["query", "passage"] = Field(description="query or passage")

    @property
    def name(self) -> str:
        """As rows have it."""
        return f"{self.adapter}.{self.prompt}"

    @validate_model(mode="after")
    def _is_task(self) -> "OwnTask":
        if find_task(self.name) is None:
            raise ValueError(f"prompt: {self.prompt}, but {self.adapter} has none; write its name")
        return self


def one_or_many(value: object) -> str:
    """Which of the two kinds of a key that takes one or a list was written."""
    return "many" if isinstance(value, list) else "one"


def _name_or_column(value: object) -> str:
    if isinstance(value, OwnTask) or (isinstance(value, dict) and "adapter" in value):
        return "own"
    return "column" if isinstance(value, dict | TaskColumn) else "name"


Uris = Annotated[
    Annotated[PlainUri, Tag("one")] | Annotated[list[PlainUri], Field(min_length=1), Tag("many")],
    Discriminator(one_or_many),
]
TaskChoice = Annotated[
    Annotated[Literal[*TASKS], Tag("name")]  # type: ignore[valid-type]
    | Annotated[TaskColumn, Tag("column")]
    | Annotated[OwnTask, Tag("own")],
    Discriminator(_name_or_column),
]


class SourceSpec(Section):
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
    image_hosts: list[Annotated[str, Field(pattern=HOST_PATTERN, max_length=253)]] = Field(
        [],
        description="a list of host names, in lower case, from which images at http(s) URLs are "
        "fetched",
    )
    task: TaskChoice = Field(
        description=f"one of {', '.join(TASKS)}, {{column: name}}, or {{adapter: name, prompt: "
        "query or passage}"
    )
    keep: list[str] = Field([], description="a list of columns to carry to the output")
    on_bad_file: Literal["fail", "skip"] = Field(
        "fail", description="fail or skip: what to do about a shard that cannot be read at all"
    )

    @property
    def uris(self) -> tuple[str, ...]:
        """All patterns."""
        return (self.uri,) if isinstance(self.uri, str) else tuple(self.uri)

    def located(self, uris: Sequence[str]) -> "SourceSpec":
        """The same source at other locations."""
        return self.model_copy(update={"uri": list(uris)})

    @property
    def reading(self) -> str:
        """How rows are read, whatever their location: part of the identity of a unit of work."""
        # defaults are left out: a key that is new in a later version changes no work done before;
        # a host that is allowed later concerns only what was set aside
        passing = {"uri", "on_bad_file", "image_hosts"}
        mapped = self.model_dump(mode="json", exclude=passing, exclude_defaults=True)
        return json.dumps(mapped | {"texts": self.maps_text, "images": self.maps_image})

    @property
    def task_column(self) -> str | None:
        """The routing column, when each row names its own task."""
        return self.task.column if isinstance(self.task, TaskColumn) else None

    @property
    def task_name(self) -> str | None:
        """The task of all rows, unless each row names its own."""
        if isinstance(self.task, TaskColumn):
            return None
        return self.task.name if isinstance(self.task, OwnTask) else str(self.task)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that its rows may have, by name."""
        if self.task_name is not None:
            return {self.task_name: task_named(self.task_name)}
        assert isinstance(self.task, TaskColumn)
        own = [task for adapter in self.task.adapters for task in tasks_of(adapter)]
        return TASKS | {task.name: task for task in own}

    def known(self, tasks: Iterable[str | None]) -> list[str | None]:
        """The tasks of rows, None for those that are none of the source's."""
        there = self.tasks
        return [task if task in there else None for task in tasks]

    def adapter_of(self, task: str | None) -> str:
        """The adapter whose pool takes a row of that task.

        A row whose task is none of the source's goes along with the first adapter's, to be
        quarantined there.
        """
        found = self.tasks.get(task or "")
        return ADAPTERS[0] if found is None else found.adapter

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
            raise ValueError(f"id: {self.id!r}, but the id in {self.format} sources is {what}")
        if self.image_hosts and (self.format not in ("parquet", "jsonl") or self.image is None):
            raise ValueError(
                f"image_hosts: {self.image_hosts!r}, but only the image column of a parquet or "
                "jsonl source holds URLs"
            )
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
