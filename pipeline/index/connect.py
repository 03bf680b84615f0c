"""Connecting: the store that a spec names, by its own file, which is imported when it is asked for.

An extra brings its client, so that whoever uses one store does not install the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.credentials import resolve
from pipeline.errors import SpecError
from pipeline.index.patient import Patient
from pipeline.index.spec import VectorStoreSpec
from pipeline.index.store import VectorStore
from pipeline.storage import store_of


@contextmanager
def connected(spec: VectorStoreSpec) -> Iterator[VectorStore]:
    """A connection to the store of a spec, which is asked with patience.

    Raises:
        SpecError: its client is not installed, or the secret is not there.
    """
    store = Patient(_connect(spec), spec.feed.patience)
    try:
        yield store
    finally:
        store.close()


def _connect(spec: VectorStoreSpec) -> VectorStore:
    secret = None if spec.secret is None else resolve(spec.secret, "store.secret")
    try:
        if spec.kind == "lancedb":
            from pipeline.index.stores.lancedb import LanceDB

            return LanceDB(spec.url, secret, store_of(spec.url))
        if spec.kind == "milvus":
            from pipeline.index.stores.milvus import Milvus

            return Milvus(spec.url, secret)
        if spec.kind == "qdrant":
            from pipeline.index.stores.qdrant import Qdrant

            return Qdrant(spec.url, secret)
        from pipeline.index.stores.pgvector import Pgvector

        return Pgvector(spec.url, secret)
    except ImportError as error:
        raise SpecError(
            f"store.kind: {spec.kind} needs a client that is not installed ({error.name}); in "
            f"Nightjar's folder: pip install -e '.[{spec.kind}]'"
        ) from error
