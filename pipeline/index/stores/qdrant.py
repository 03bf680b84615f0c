"""Qdrant: a server, or its client's own engine in a directory or in memory.

A collection is one of Qdrant's, which says in its metadata whose it is and what columns it has; the
alias is an alias of Qdrant's. What earlier runs may not touch is a condition of each upsert and
deletion, which servers understand from 1.16 on; the first load of a collection, which nobody else
writes to, needs none.

Single vectors are compared by cosine, multi-vectors by the inner product of what has length one:
for a cosine Qdrant makes the length one anew, which float16 has rounded, and MaxSim adds up what
that differs. For the same reason it keeps multi-vectors in single precision, whatever they come in:
in half precision it rounds the query too. Without an approximating index none is built.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from qdrant_client import models

from pipeline.errors import CollectionError, StoreFailed
from pipeline.index.layout import (
    MULTI,
    NUMBER,
    POINT,
    RUN,
    SINGLE,
    STAMP,
    TEXT,
    TIME,
    TRUTH,
    WHOLE,
    Layout,
    differing,
)
from pipeline.index.store import Bounds, Busy, Hit, Question, Refused, hits_of
from pipeline.index.stores.qdrant_filters import filter_of, named, path_of, until
from pipeline.index.stores.qdrant_points import (
    columns_of,
    payload_rows,
    points_of,
    stamps_of,
    table_of,
    told_of,
    vectors_of,
)
from pipeline.index.stores.qdrant_reached import reach

_OWNER, _COLUMNS = "nightjar_dataset", "nightjar_columns"
_INDEXES = {
    TEXT: models.PayloadSchemaType.KEYWORD,
    WHOLE: models.PayloadSchemaType.INTEGER,
    NUMBER: models.PayloadSchemaType.FLOAT,
    TRUTH: models.PayloadSchemaType.BOOL,
    TIME: models.PayloadSchemaType.DATETIME,
}
_SCANNED = 10_000
_FETCHED = 32
"""Points whose vectors are asked for at a time: of a long document 20 MB."""
_EDGES = 16
"""Of each point of an approximating index; Qdrant's default."""
_LOOKS = 0.5


# a request is JSON of up to 20 bytes a number, and servers take 32 MB
_SERVER = Bounds(batch_bytes=2 << 20, batch_points=1_000, at_once=4, numbers_per_multi=1 << 20)
_ENGINE = Bounds(batch_bytes=512 << 10, batch_points=500, at_once=1, numbers_per_multi=1 << 20)


class Qdrant:
    """A server of Qdrant, or the engine of its client."""

    def __init__(self, url: str, secret: str | None) -> None:
        """Connect.

        Args:
            url: of a server, a directory, or `:memory:`.
            secret: the API key of a server.

        Raises:
            StoreFailed: nobody answers there, not to us, or not as we need it.
        """
        self._reached = reach(url, secret)
        self._asked = self._reached.asked
        # which is exact whatever it is asked, and warns of settings that it has no use for
        self._is_engine = self._reached.place is not None
        self.bounds = _ENGINE if self._is_engine else _SERVER

    def owner(self, collection: str) -> str | None:
        """See `VectorStore`."""
        if not self._is_there(collection):
            return None
        owner = self._metadata(collection).get(_OWNER)
        if owner is None:
            raise CollectionError(
                f"store.collection: {collection!r} is a collection that Nightjar has not made; "
                "choose another name"
            )
        return str(owner)

    def create(self, collection: str, layout: Layout, owner: str) -> None:
        """See `VectorStore`."""
        if self._is_there(collection):
            raise CollectionError(f"the collection {collection!r} is there already")
        metadata = {_OWNER: owner, _COLUMNS: columns_of(layout)}
        try:
            with self._asked() as client:
                client.create_collection(
                    collection, vectors_config=vectors_of(layout), metadata=metadata
                )
        except Refused as refused:
            # another has made it meanwhile, or it is not to be made
            raise CollectionError(f"the collection {collection!r}: {refused}") from refused
        self._index(collection, layout)

    def demand_fit(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`."""
        with self._asked() as client:
            vectors = client.get_collection(collection).config.params.vectors
        there = vectors if isinstance(vectors, dict) else {}
        wanted = columns_of(layout) | {
            name: told_of(one) for name, one in vectors_of(layout).items()
        }
        found = self._metadata(collection).get(_COLUMNS, {})
        found |= {name: told_of(one) for name, one in there.items()}
        if found != wanted:
            raise differing(collection, wanted=wanted, there=found)

    def drop(self, collection: str) -> None:
        """See `VectorStore`."""
        if self._is_there(collection):
            with self._asked() as client:
                client.delete_collection(collection)

    def load(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`."""
        self._write(collection, points, None)

    def upsert(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`."""
        # all points of a request are of one run
        run = points[RUN][0].as_py()
        self._write(collection, points, models.Filter(must=[until(run)]))

    def delete(self, collection: str, points: pa.Array, run: int) -> None:
        """See `VectorStore`."""
        chosen = models.Filter(must=[named(points.to_pylist()), until(run)])
        with self._asked() as client:
            _demand_done(client.delete(collection, models.FilterSelector(filter=chosen), wait=True))

    def count(self, collection: str) -> int:
        """See `VectorStore`."""
        with self._asked() as client:
            return client.count(collection, exact=True).count

    def scan(self, collection: str) -> Iterator[pa.Table]:
        """See `VectorStore`."""
        offset: models.ExtendedPointId | None = None
        while True:
            with self._asked() as client:
                records, offset = client.scroll(
                    collection,
                    limit=_SCANNED,
                    offset=offset,
                    with_payload=[STAMP],
                    with_vectors=False,
                )
            if records:
                yield stamps_of(records)
            if offset is None:
                return

    def fetch(self, collection: str, layout: Layout, points: Sequence[bytes]) -> pa.Table:
        """See `VectorStore`."""
        tables = [layout.schema.empty_table()]
        for start in range(0, len(points), _FETCHED):
            ids = named(points[start : start + _FETCHED]).has_id
            with self._asked() as client:
                records = client.retrieve(collection, ids, with_payload=True, with_vectors=True)
            tables.append(table_of(records, layout))
        return pa.concat_tables(tables)

    def settle(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`."""
        # a creation that was killed has left some of them out
        self._index(collection, layout)
        if not layout.approximate or SINGLE not in layout.vectors:
            return
        change = models.VectorParamsDiff(hnsw_config=models.HnswConfigDiff(m=_EDGES))
        status = models.CollectionStatus.GREY
        while status != models.CollectionStatus.GREEN:
            with self._asked() as client:
                # grey is what has to be done and was not begun, which a change of the settings does
                if status == models.CollectionStatus.GREY:
                    client.update_collection(collection, vectors_config={SINGLE: change})
            time.sleep(_LOOKS)
            with self._asked() as client:
                info = client.get_collection(collection)
            status = info.status
            if status == models.CollectionStatus.RED:
                raise StoreFailed(
                    f"Qdrant cannot index collection {collection!r}: {info.optimizer_status}"
                )

    def search(self, collection: str, layout: Layout, question: Question) -> list[Hit]:
        """See `VectorStore`."""
        vectors = question.vectors.tolist()
        is_exact = question.using == MULTI or not layout.approximate
        exactly = models.SearchParams(exact=True)
        with self._asked() as client:
            found = client.query_points(
                collection,
                query=vectors if question.using == MULTI else vectors[0],
                using=question.using,
                query_filter=filter_of(question.condition, question.among),
                limit=question.most,
                with_payload=True,
                search_params=exactly if is_exact and not self._is_engine else None,
            ).points
        names = [POINT, *(name for name, _ in layout.payload)]
        schema = layout.schema.empty_table().select(names).schema
        rows = pa.Table.from_pylist(payload_rows(found, layout), schema)
        return hits_of(rows, [one.score for one in found])

    def live(self, alias: str) -> str | None:
        """See `VectorStore`."""
        with self._asked() as client:
            aliases = client.get_aliases().aliases
        return next((one.collection_name for one in aliases if one.alias_name == alias), None)

    def lead(self, alias: str, collection: str) -> None:
        """See `VectorStore`."""
        if self._is_there(alias):
            raise CollectionError(
                f"store.collection: {alias!r} is a collection that Nightjar has not made; choose "
                "another name"
            )
        operations: list[models.AliasOperations] = [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
            )
        ]
        if self.live(alias) is not None:
            before = models.DeleteAlias(alias_name=alias)
            operations.insert(0, models.DeleteAliasOperation(delete_alias=before))
        with self._asked() as client:
            # those of one request take effect at once
            client.update_collection_aliases(operations)

    def close(self) -> None:
        """See `VectorStore`."""
        self._reached.close()

    def _is_there(self, name: str) -> bool:
        """Whether a collection has that name; to all other questions an alias answers too."""
        with self._asked() as client:
            return name in {one.name for one in client.get_collections().collections}

    def _metadata(self, collection: str) -> dict[str, Any]:
        with self._asked() as client:
            return dict(client.get_collection(collection).config.metadata or {})

    def _index(self, collection: str, layout: Layout) -> None:
        """Have the indexes of the payload that are not there."""
        if self._is_engine:
            return
        types = dict(layout.payload)
        wanted = {path_of(name): _INDEXES[types[name]] for name in layout.indexed}
        # servers may be set to refuse conditions on what has no index
        wanted[RUN] = models.PayloadSchemaType.INTEGER
        with self._asked() as client:
            there = client.get_collection(collection).payload_schema
            for path in wanted.keys() - there.keys():
                client.create_payload_index(collection, path, wanted[path], wait=True)

    def _write(self, collection: str, points: pa.Table, condition: models.Filter | None) -> None:
        made = points_of(points)
        with self._asked() as client:
            _demand_done(client.upsert(collection, made, wait=True, update_filter=condition))


def _demand_done(result: models.UpdateResult) -> None:
    """Refuse to go on before it is done: the same request may be made again."""
    if result.status != models.UpdateStatus.COMPLETED:
        raise Busy(f"Qdrant has not done it yet: {result.status}")
