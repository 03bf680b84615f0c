"""The source of a job spec: where the rows are, and which columns are what."""

import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic import model_validator as validate_model
from pydantic_core import PydanticCustomError

from pipeline.section import Section
from pipeline.stores import has_password
from pipeline.tasks import TASKS
from pipeline.web import HOST_PATTERN


def _without_password(uri: str) -> str:
    if has_password(uri):
        raise PydanticCustomError(
            "field", "there is a password in the URL; name it in storage instead"
        )
    return uri


PlainUri = Annotated[str, Field(min_length=1), AfterValidator(_without_password)]
"""A URL or path that shows no password."""


class TaskColumn(Section):
    """Each row names its own task."""

    column: str = Field(description="the name of the column that holds each row's task")


def one_or_many(value: object) -> str:
    """Which of the two kinds of a key that takes one or a list was written."""
    return "many" if isinstance(value, list) else "one"


def _name_or_column(value: object) -> str:
    return "column" if isinstance(value, dict | TaskColumn) else "name"


Uris = Annotated[
    Annotated[PlainUri, Tag("one")] | Annotated[list[PlainUri], Field(min_length=1), Tag("many")],
    Discriminator(one_or_many),
]
TaskChoice = Annotated[
    Annotated[Literal[*TASKS], Tag("name")] | Annotated[TaskColumn, Tag("column")],  # type: ignore[valid-type]
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
    task: TaskChoice = Field(description=f"one of {', '.join(TASKS)}, or {{column: name}}")
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
