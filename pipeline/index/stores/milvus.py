"""Milvus: a collection for each of ours, on a server or in a file of Milvus Lite.

An insert of Milvus never looks at keys, so that an answer that was lost would leave points twice:
everything is upserted. An upsert cannot be made to depend on what is there: which points a later
run has written is asked for first. A later run that writes them between the question and the upsert
is overwritten, and a server that deletes by a condition has the same moment within itself; the next
audit shows what came of it.

Everything is read with strong consistency, so nothing has to be flushed to be found; only an index
that approximates is built of what is flushed. Without one every search is exact.

A file of Milvus Lite is held by one process, until that ends, and has one writer at a time; so has
a server of Milvus Lite.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import grpc
import pyarrow as pa
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from pipeline.errors import CollectionError, StoreFailed
from pipeline.index.layout import POINT, RUN, SINGLE, STAMP, Layout, differing
from pipeline.index.store import Bounds, Busy, Hit, Question
from pipeline.index.stores.milvus_rows import (
    expression,
    keys_of,
    messages_of,
    named,
    payload_of,
    table_of,
)
from pipeline.index.stores.milvus_schema import DIGITS, METRIC, columns_of, indexes_of, schema_of
from pipeline.index.stores.milvus_wire import (
    NOT_LOADED,
    SECONDS,
    Wire,
    is_refusal,
    served,
    told,
)

_OWNER = "nightjar_dataset"
_CONNECTS: Final = 10.0
"""Seconds that a server may take to answer at all."""
_MOST_HITS = 16_384
"""That Milvus finds at a time."""
_BREADTH, _GREATEST_BREADTH = 64, 32_768
"""Points that a search of an index that approximates looks at, at least and at most."""
_PAGE = 10_000
"""Points that are scanned at a time, about."""
_T = TypeVar("_T")


class Milvus:
    """A database of Milvus."""

    def __init__(self, url: str, secret: str | None) -> None:
        """Connect.

        Args:
            url: `http://host:port`, `https://host:port`, either with a database as its path, or a
                path that ends in `.db`.
            secret: the token, an API key or `user:password`; a file has none.

        Raises:
            SpecError: it is no such URL.
            StoreFailed: nobody answers there, or not to us, or another process holds the file.
        """
        reached = served(url) if "://" not in url else url
        try:
            self._client = MilvusClient(
                reached, token=secret or "", timeout=_CONNECTS, dedicated=True
            )
            version = str(self._client.get_server_version(timeout=_CONNECTS))
        except (MilvusException, grpc.RpcError) as error:
            raise StoreFailed(f"store.url: {url!r} cannot be used: {_brief(error)}") from error
        self._wire = Wire(reached, secret)
        self._loaded: set[str] = set()
        self._whole: set[str] = set()
        is_lite = version.startswith("milvus_lite")
        self.bounds = Bounds(batch_bytes=8 << 20, batch_points=5_000, at_once=1 if is_lite else 4)

    @told()
    def owner(self, collection: str) -> str | None:
        """See `VectorStore`."""
        if not self._client.has_collection(collection, timeout=SECONDS):
            return None
        there = self._client.describe_collection(collection, timeout=SECONDS)
        owner = there["properties"].get(_OWNER)
        # a name that is an alias describes what it leads to
        if owner is None or there["collection_name"] != collection:
            raise CollectionError(
                f"store.collection: {collection!r} is something that Nightjar has not made; "
                "choose another name"
            )
        return str(owner)

    @told()
    def create(self, collection: str, layout: Layout, owner: str) -> None:
        """See `VectorStore`."""
        schema = schema_of(layout)
        if self._client.has_collection(collection, timeout=SECONDS):
            raise CollectionError(f"the collection {collection!r} is there already")
        try:
            self._client.create_collection(
                collection,
                schema=schema,
                properties={_OWNER: owner},
                consistency_level="Strong",
                timeout=SECONDS,
            )
        except MilvusException as error:
            if not is_refusal(error):
                raise
            raise CollectionError(
                f"Milvus does not make the collection {collection!r}: {_brief(error)}"
            ) from error
        self._complete(collection, layout)

    @told()
    def demand_fit(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`."""
        there = self._client.describe_collection(collection, timeout=SECONDS)
        index = self._client.describe_index(collection, SINGLE, timeout=SECONDS)
        columns = columns_of(there["fields"])
        wanted = columns_of(schema_of(layout).to_dict()["fields"])
        # one that was killed before it had an index gets it when it is settled
        if index is not None:
            columns["metric"], wanted["metric"] = index["metric_type"], METRIC
        if columns != wanted:
            raise differing(collection, wanted=wanted, there=columns)

    @told()
    def drop(self, collection: str) -> None:
        """See `VectorStore`."""
        self._client.drop_collection(collection, timeout=SECONDS)
        self._loaded.discard(collection)
        self._whole.discard(collection)

    def load(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`."""
        self._write(collection, points, keys_of(points[POINT]))

    def upsert(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`."""
        keys = keys_of(points[POINT])
        schema = points.schema.empty_table().select([POINT, RUN]).schema
        there = self._query(collection, named(keys), schema)
        runs = dict(zip(keys_of(there[POINT]), there[RUN].to_pylist(), strict=True))
        ours = points[RUN].to_pylist()
        left = [at for at, key in enumerate(keys) if runs.get(key, ours[at]) <= ours[at]]
        if left:
            self._write(collection, points.take(pa.array(left)), [keys[at] for at in left])

    def delete(self, collection: str, points: pa.Array, run: int) -> None:
        """See `VectorStore`."""
        condition = f"{named(keys_of(points))} and {RUN} <= {run}"
        self._read(collection, lambda: self._wire.delete(collection, condition))

    def count(self, collection: str) -> int:
        """See `VectorStore`."""
        schema = pa.schema([pa.field("count(*)", pa.int64())])
        return int(self._query(collection, "", schema)["count(*)"][0].as_py())

    def scan(self, collection: str) -> Iterator[pa.Table]:
        """See `VectorStore`; UUIDs are spread evenly, so that ranges of them are pages."""
        schema = pa.schema([(POINT, pa.binary(DIGITS // 2)), (STAMP, pa.int64())])
        pages = 1 + self.count(collection) // _PAGE
        ends = [f"{at * 16**8 // pages:08x}" for at in range(pages)]
        for start, end in zip(ends, [*ends[1:], "g"], strict=True):
            condition = f'{POINT} >= "{start}" and {POINT} < "{end}"'
            yield self._query(collection, condition, schema)

    def fetch(self, collection: str, layout: Layout, points: Sequence[bytes]) -> pa.Table:
        """See `VectorStore`."""
        return self._query(collection, named([point.hex() for point in points]), layout.schema)

    @told()
    def settle(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`; a server builds an index that approximates in its own time."""
        self._complete(collection, layout)
        if layout.approximate:
            self._client.flush(collection)

    def search(self, collection: str, layout: Layout, question: Question) -> list[Hit]:
        """See `VectorStore`; of 16,384 hits at most."""
        conditions = []
        if question.condition is not None:
            conditions.append(expression(question.condition))
        if question.among is not None:
            conditions.append(named([point.hex() for point in question.among]))
        types, most = dict(layout.payload), min(question.most, _MOST_HITS)

        def ask(breadth: int) -> list[dict[str, Any]]:
            (found,) = self._client.search(
                collection,
                data=[question.vectors[0]],
                anns_field=SINGLE,
                filter=" and ".join(f"({one})" for one in conditions),
                limit=most,
                output_fields=list(types),
                search_params={"params": {"ef": breadth} if layout.approximate else {}},
                timeout=SECONDS,
            )
            return list(found)

        hits = self._read(collection, lambda: ask(max(_BREADTH, 2 * most)))
        if layout.approximate and conditions and len(hits) < most:
            # what it looks at first has not enough that fulfil the conditions
            hits = self._read(collection, lambda: ask(_GREATEST_BREADTH))
        return [
            Hit(
                point=bytes.fromhex(found[POINT]),
                score=float(found["distance"]),
                payload=payload_of(found["entity"], types),
            )
            for found in hits
        ]

    @told()
    def live(self, alias: str) -> str | None:
        """See `VectorStore`."""
        # of one that is not there the client would log an error
        if alias not in self._client.list_aliases(timeout=SECONDS)["aliases"]:
            return None
        return str(self._client.describe_alias(alias, timeout=SECONDS)["collection_name"])

    @told()
    def lead(self, alias: str, collection: str) -> None:
        """See `VectorStore`."""
        if self.live(alias) is not None:
            self._client.alter_alias(collection, alias, timeout=SECONDS)
        elif self._client.has_collection(alias, timeout=SECONDS):
            raise CollectionError(
                f"store.collection: {alias!r} is a collection; choose another name"
            )
        else:
            self._client.create_alias(collection, alias, timeout=SECONDS)

    def close(self) -> None:
        """See `VectorStore`."""
        self._wire.close()
        self._client.close()

    def _complete(self, collection: str, layout: Layout) -> None:
        """Make the indexes that are missing, and load the collection.

        One that was killed between the collection and its indexes has left some out.
        """
        if collection not in self._whole:
            # asked once: of Milvus Lite it takes as long as a count
            missing = {SINGLE, *layout.indexed} - set(self._client.list_indexes(collection))
            for params in indexes_of(layout, missing):
                self._client.create_index(collection, params, timeout=SECONDS, sync=False)
            self._whole.add(collection)
        self._load(collection)

    def _write(self, collection: str, points: pa.Table, keys: Sequence[str]) -> None:
        """Upsert points; of those that share a key the last."""
        last = {key: at for at, key in enumerate(keys)}
        if len(last) < len(keys):
            points, keys = points.take(pa.array(list(last.values()))), list(last)
        self._wire.upsert(collection, messages_of(points, keys), len(keys))

    def _query(self, collection: str, condition: str, schema: pa.Schema) -> pa.Table:
        """Columns of the points that fulfil a condition."""
        names = schema.names
        found = self._read(collection, lambda: self._wire.query(collection, condition, names))
        return table_of(found, schema)

    def _read(self, collection: str, ask: Callable[[], _T]) -> _T:
        """Ask, of a collection that is loaded: a server that was begun anew has to be told."""
        for _ in range(2):
            try:
                with told():
                    self._load(collection)
                    return ask()
            except MilvusException as error:
                if error.code != NOT_LOADED:
                    raise
                self._loaded.discard(collection)
        raise Busy(f"the collection {collection!r} does not stay loaded")

    def _load(self, collection: str) -> None:
        if collection not in self._loaded:
            self._client.load_collection(collection)
            self._loaded.add(collection)


def _brief(error: MilvusException | grpc.RpcError) -> str:
    said = error.message if isinstance(error, MilvusException) else error.details()
    return " ".join(str(said).split())
