"""The specs of what happens after the commit: a backfill of a vector store, and an evaluation."""

from collections.abc import Callable
from typing import Literal

from pydantic import Field, field_validator
from pydantic import model_validator as validate_model
from pydantic_core import PydanticCustomError

from pipeline.credentials import REFERENCE
from pipeline.section import Section
from pipeline.source_spec import PlainUri, TaskName
from pipeline.spec import ModelSpec
from pipeline.stores import StoreSpec, has_password
from pipeline.tasks import EXPECTED

Kind = Literal["lancedb", "milvus", "pgvector", "qdrant"]
Vectors = Literal["single", "multi"]
Absolute = Callable[[str], str]
"""Spells a path so that it holds from any working directory."""
_VERSION = "a version's number or tag, or null for the published one"


class DatasetSpec(Section):
    """A snapshot."""

    uri: PlainUri = Field(description="a path or object-store URL of the dataset")
    version: int | str | None = Field(None, description=_VERSION)

    def located(self, absolute: Absolute) -> "DatasetSpec":
        """The same with a location that holds from any working directory."""
        return self.model_copy(update={"uri": absolute(self.uri)})


class FeedSpec(Section):
    """How a store is written to; null leaves it to the store's own file."""

    batch_bytes: int | None = Field(
        None, ge=1, description="a whole number of bytes of one request, at most, or null"
    )
    batch_points: int | None = Field(
        None, ge=1, description="a whole number of points of one request, at most, or null"
    )
    at_once: int | None = Field(
        None, ge=1, description="a whole number of requests in flight, at most, or null"
    )
    patience: float = Field(
        900.0, ge=0, description="seconds for which a store that fails is tried again"
    )
    rejected_share: float = Field(
        0.01, ge=0, le=1, description="the largest share of points that the store refuses"
    )


class VectorStoreSpec(Section):
    """A collection of a vector store, and what of a snapshot goes there."""

    kind: Kind = Field(description="lancedb, milvus, pgvector or qdrant")
    url: str = Field(description="where the store is: a path or a URL, without a password")
    collection: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,47}$",
        description="the name that readers use: a lower-case letter, then letters, digits and _, "
        "at most 48",
    )
    secret: str | None = Field(
        None, description="the password or API key, as env:NAME or file:PATH, or null"
    )
    vectors: list[Vectors] = Field(
        ["single"], min_length=1, description="a list of single and multi"
    )
    dim: int | None = Field(
        None,
        ge=1,
        description="the size, of the checkpoint's matryoshka_dims, that single vectors are cut "
        "to, or null for the largest there is",
    )
    payload: list[str] | None = Field(
        None, description="a list of columns of the dataset, or null for all kept ones"
    )
    index: list[str] = Field([], description="a list of columns of the payload, id, task, modality")
    vector_index: bool = Field(
        False, description="true or false: whether the store builds an index that approximates"
    )
    too_long: Literal["pool", "split"] = Field(
        "pool",
        description="pool or split: what to do about more vectors than a point of the store holds",
    )
    feed: FeedSpec = Field(FeedSpec(), description="how the store is written to")

    @property
    def is_path(self) -> bool:
        """Whether the store is files, and no server; `:memory:` is neither."""
        return "://" not in self.url and not self.url.startswith(":")

    @field_validator("url")
    @classmethod
    def _is_without_password(cls, value: str) -> str:
        if has_password(value):
            raise PydanticCustomError("field", "there is a password in the URL; name it as secret")
        return value

    @field_validator("secret", mode="before")
    @classmethod
    def _is_a_reference(cls, value: object) -> object:
        if value is not None and not (isinstance(value, str) and REFERENCE.fullmatch(value)):
            # whatever it is, it may be the secret itself: it is not shown
            raise PydanticCustomError(
                "field", "expected env:NAME or file:PATH, which name a secret"
            )
        return value

    @validate_model(mode="after")
    def _is_of_one_piece(self) -> "VectorStoreSpec":
        for key in ("vectors", "payload", "index"):
            values = getattr(self, key) or []
            repeated = [value for value in values if values.count(value) > 1]
            if repeated:
                raise ValueError(f"{key}: {repeated[0]!r} is there twice")
        if self.kind == "milvus" and "multi" in self.vectors:
            raise ValueError(
                "vectors: milvus has no multi-vectors; lancedb, pgvector and qdrant have "
                "them, name single alone here"
            )
        if self.dim is not None and "single" not in self.vectors:
            raise ValueError("dim: means nothing without single vectors")
        return self


class BackfillSpec(Section):
    """A backfill: which snapshot, and to where."""

    dataset: DatasetSpec = Field(description="{uri, version}")
    store: VectorStoreSpec = Field(description="the collection")
    storage: list[StoreSpec] = Field(
        [], description="a list of object stores and how to reach them"
    )

    def located(self, absolute: Absolute) -> "BackfillSpec":
        """The same with locations that hold from any working directory."""
        store = self.store
        if store.is_path:
            store = store.model_copy(update={"url": absolute(store.url)})
        return self.model_copy(update={"dataset": self.dataset.located(absolute), "store": store})


class QueriesSpec(Section):
    """Who asks."""

    uri: PlainUri = Field(description="a JSONL or Parquet file of queries, with globs for several")
    task: TaskName = Field("retrieval.query", description=EXPECTED)
    id: str | None = Field(
        None,
        description="the column of the queries' ids, or null: _id, or with relevant no column",
    )
    text: str = Field("text", description="the column of what is asked")
    relevant: str | None = Field(
        None,
        description="the column of the ids of documents that each query is to find, or null where "
        "qrels says it",
    )


class MultiSpec(Section):
    """How multi-vectors are evaluated."""

    exact_vectors: int = Field(
        4_000_000,
        ge=0,
        description="a whole number: with more vectors than that, only what single vectors find "
        "first is ranked by multi-vectors",
    )
    rerank: int = Field(
        200,
        ge=100,
        description="a whole number from 100 of documents that multi-vectors then rank again",
    )


class EvaluateSpec(Section):
    """An evaluation: how well queries find, in a snapshot, what is relevant to them."""

    dataset: DatasetSpec = Field(description="{uri, version}")
    model: ModelSpec = Field(description="the checkpoint that embeds the queries")
    queries: QueriesSpec = Field(description="{uri, task}")
    qrels: PlainUri | None = Field(
        None,
        description="a TSV, JSONL or Parquet file: query-id, corpus-id, score; or null with "
        "queries.relevant",
    )
    ignore_identical_ids: bool = Field(
        True,
        description="true or false: whether, as BEIR does, a document that has the id of a query "
        "is left out of what that query finds",
    )
    multi: MultiSpec = Field(MultiSpec(), description="{exact_vectors, rerank}")
    storage: list[StoreSpec] = Field(
        [], description="a list of object stores and how to reach them"
    )

    def located(self, absolute: Absolute) -> "EvaluateSpec":
        """The same with locations that hold from any working directory."""
        queries = self.queries.model_copy(update={"uri": absolute(self.queries.uri)})
        qrels = {} if self.qrels is None else {"qrels": absolute(self.qrels)}
        return self.model_copy(
            update={
                "dataset": self.dataset.located(absolute),
                "model": self.model.located(absolute),
                "queries": queries,
                **qrels,
            }
        )

    @validate_model(mode="after")
    def _is_judged_once(self) -> "EvaluateSpec":
        if (self.qrels is None) == (self.queries.relevant is None):
            raise ValueError("qrels or queries.relevant: expected one of the two")
        return self
