"""LanceDB: tables in a directory, in object storage, or in LanceDB's cloud.

A collection is a table. LanceDB has no aliases and renames nothing, so where readers are led is a
row of a table of ours, `nightjar_aliases`, which one commit replaces. A primary key is set when a
table is made: without it, writers that add the same new point at once leave a copy each. So they do
where keys are of a fixed width, which LanceDB does not compare, and bytes of any width it does not
index: UUIDs are 32 hexadecimal digits. Plain appends never look at the key, so they are for a
collection that nobody else writes to.

Without an index of vectors every search is exact, but multi-vectors of float16 are compared in that
precision. `_distance` is one minus the cosine.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import BTree, IvfPq
from numpy.typing import NDArray

from pipeline.errors import CollectionError, StoreFailed
from pipeline.index.layout import (
    MULTI,
    POINT,
    POINT_TYPE,
    RUN,
    SINGLE,
    STAMP,
    Layout,
    as_one,
    differing,
)
from pipeline.index.points import octets_of
from pipeline.index.scoring import maxsim_of, nearest
from pipeline.index.store import Bounds, Busy, Hit, Question, Refused, hits_of
from pipeline.index.stores.lancedb_heap import give_freed_memory_back, keep_freed_memory
from pipeline.index.stores.lancedb_sql import in_sql, literal
from pipeline.stores import StoreSpec

_OWNER = b"nightjar_dataset"
_KEY = pa.field(POINT, pa.string(), nullable=False, metadata={"lance-encoding:compression": "none"})
"""Digits of digests: compression finds nothing in them, and takes longer than writing them."""
_ALIASES = "nightjar_aliases"
_ALIAS = pa.schema([pa.field("alias", pa.string(), nullable=False), pa.field("table", pa.string())])
_SCANNED = 65_536
_LEAST_INDEXED = 256
"""Rows below which product quantisation cannot be trained."""
_REFINED = 10
_UNINDEXED = 0.05
_MANY_FILES, _SMALL_FILE = 20, 32 << 20
_UNTIL_NOW = f"source.{RUN} >= target.{RUN}"


@contextmanager
def _told() -> Iterator[None]:
    """Tell what may go well later from what never will; the client says so by class alone."""
    try:
        yield
    except (ValueError, pa.ArrowInvalid) as error:
        raise Refused(str(error)) from error
    except (RuntimeError, OSError) as error:
        raise Busy(str(error)) from error


class LanceDB:
    """A LanceDB database."""

    bounds = Bounds(batch_bytes=96 << 20, batch_points=50_000, at_once=3)

    def __init__(self, url: str, secret: str | None, store: StoreSpec | None) -> None:
        """Connect.

        Args:
            url: a directory, an object-store URL, or `db://` and a name.
            secret: the API key of a `db://` database.
            store: how the object store is reached; None for what its client finds in the
                environment.

        Raises:
            StoreFailed: there can be no database.
        """
        options = None if store is None else _options(store)
        try:
            self._database = lancedb.connect(url, api_key=secret, storage_options=options)
        except (OSError, RuntimeError, ValueError) as error:
            raise StoreFailed(f"store.url: {url!r} cannot be used: {error}") from error
        self._merging = threading.Lock()
        self._has_loaded = False

    @_told()
    def owner(self, collection: str) -> str | None:
        """See `VectorStore`."""
        if not self._is_there(collection):
            return None
        owner = (self._table(collection).schema.metadata or {}).get(_OWNER)
        if owner is None:
            raise CollectionError(
                f"store.collection: {collection!r} is a table that Nightjar has not made; choose "
                "another name"
            )
        return str(owner, "ascii")

    @_told()
    def create(self, collection: str, layout: Layout, owner: str) -> None:
        """See `VectorStore`."""
        if self._is_there(collection):
            raise CollectionError(f"the table {collection!r} is there already")
        schema = _schema(layout).with_metadata({_OWNER: owner.encode()})
        table = self._database.create_table(collection, schema=schema)
        table.set_unenforced_primary_key(POINT)

    @_told()
    def demand_fit(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`."""
        there = {field.name: str(field.type) for field in self._table(collection).schema}
        wanted = {field.name: str(field.type) for field in _schema(layout)}
        if there != wanted:
            raise differing(collection, wanted=wanted, there=there)

    @_told()
    def drop(self, collection: str) -> None:
        """See `VectorStore`."""
        if self._is_there(collection):
            self._database.drop_table(collection)

    @_told()
    def load(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`."""
        self._has_loaded = True
        keep_freed_memory()
        self._table(collection).add(_stored(points))

    @_told()
    def upsert(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`."""
        # of two at once one is done again; appends go well side by side
        with self._merging:
            merge = self._table(collection).merge_insert(POINT)
            merge = merge.when_matched_update_all(where=_UNTIL_NOW)
            merge.when_not_matched_insert_all().execute(_stored(points))

    @_told()
    def delete(self, collection: str, points: pa.Array, run: int) -> None:
        """See `VectorStore`."""
        self._table(collection).delete(f"{_named(points.to_pylist())} AND {RUN} <= {run}")

    @_told()
    def count(self, collection: str) -> int:
        """See `VectorStore`."""
        return int(self._table(collection).count_rows())

    def scan(self, collection: str) -> Iterator[pa.Table]:
        """See `VectorStore`."""
        chosen = self._table(collection).search().select([POINT, STAMP])
        with _told():
            yield from map(_one_table, chosen.to_batches(_SCANNED))

    @_told()
    def fetch(self, collection: str, layout: Layout, points: Sequence[bytes]) -> pa.Table:
        """See `VectorStore`."""
        names = layout.schema.names
        chosen = self._table(collection).search().where(_named(points)).select(names)
        found = chosen.to_arrow().select(names)
        return found.set_column(0, POINT, _points(found[POINT])).cast(layout.schema)

    @_told()
    def settle(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`."""
        table = self._table(collection)
        indices = table.list_indices()
        indexed = {column for index in indices for column in index.columns}
        for column in {POINT, *layout.indexed} - indexed:
            table.create_index(column, config=BTree())
        wants_index = layout.approximate and SINGLE in layout.vectors
        if wants_index and SINGLE not in indexed and table.count_rows() >= _LEAST_INDEXED:
            table.create_index(SINGLE, config=IvfPq(distance_type="cosine"))
        if _wants_order(table, max((one.num_unindexed_rows for one in indices), default=0)):
            table.optimize()

    @_told()
    def search(self, collection: str, layout: Layout, question: Question) -> list[Hit]:
        """See `VectorStore`."""
        conditions = []
        if question.condition is not None:
            conditions.append(in_sql(question.condition))
        if question.among is not None:
            conditions.append(_named(question.among))
        is_multi = question.using == MULTI
        vectors = question.vectors if is_multi else question.vectors[0]
        asked = self._table(collection).search(vectors, vector_column_name=question.using)
        asked = asked.distance_type("cosine")
        if conditions:
            asked = asked.where(" AND ".join(f"({one})" for one in conditions), prefilter=True)
        names = [POINT, *(name for name, _ in layout.payload)]
        if not is_multi:
            if layout.approximate:
                # what the index has of a vector is rough: more are found, and compared in full
                asked = asked.refine_factor(_REFINED)
            found = asked.limit(question.most).select([*names, "_distance"]).to_arrow()
            return _hits(found.select(names), 1 - found["_distance"].to_numpy())
        # what it scores in half precision is scored again, of a few more than are wanted
        found = asked.limit(2 * question.most + 10).select([*names, MULTI, "_distance"]).to_arrow()
        scores = maxsim_of(question.vectors, found[MULTI])
        best = nearest(scores, question.most)
        return _hits(found.select(names).take(pa.array(best)), scores[best])

    @_told()
    def live(self, alias: str) -> str | None:
        """See `VectorStore`."""
        if not self._is_there(_ALIASES):
            return None
        found = self._table(_ALIASES).search().where(f"alias = {literal(alias)}").to_list()
        return str(found[0]["table"]) if found else None

    @_told()
    def lead(self, alias: str, collection: str) -> None:
        """See `VectorStore`."""
        if not self._is_there(_ALIASES):
            made = self._database.create_table(_ALIASES, schema=_ALIAS, exist_ok=True)
            made.set_unenforced_primary_key("alias")
        row = pa.Table.from_pylist([{"alias": alias, "table": collection}], _ALIAS)
        merge = self._table(_ALIASES).merge_insert("alias").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(row)

    def close(self) -> None:
        """See `VectorStore`; LanceDB holds nothing open but memory."""
        if self._has_loaded:
            give_freed_memory_back()

    def _is_there(self, collection: str) -> bool:
        return collection in self._database.list_tables(limit=_SCANNED).tables

    def _table(self, collection: str) -> Any:
        # opened anew: one that is held shows the version at which it was opened
        return self._database.open_table(collection)


def _wants_order(table: Any, unindexed: int) -> bool:
    """Whether so much has changed that a table is worth being written anew, which compaction does
    to all files but those of a million rows.

    Args:
        table: that was written to.
        unindexed: rows that an index has not seen, and that are looked at one by one.
    """
    found: Mapping[str, Any] = table.stats()
    files: int = found["fragment_stats"]["num_fragments"]
    are_small = bool(found["total_bytes"] < files * _SMALL_FILE)
    return unindexed > found["num_rows"] * _UNINDEXED or (files > _MANY_FILES and are_small)


def _options(store: StoreSpec) -> dict[str, str]:
    """What LanceDB calls the settings of an S3 store."""
    settings = store.options()
    endpoint = settings.get("endpoint_url")
    found = {
        "aws_access_key_id": settings.get("key"),
        "aws_secret_access_key": settings.get("secret"),
        "aws_session_token": settings.get("token"),
        "aws_endpoint": endpoint,
        "aws_region": store.region,
        "allow_http": "true" if endpoint and endpoint.startswith("http://") else None,
        "aws_skip_signature": "true" if store.anonymous else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _schema(layout: Layout) -> pa.Schema:
    """Of a table."""
    return layout.schema.set(0, _KEY)


def _stored(points: pa.Table) -> pa.Table:
    """Points as their table has them."""
    octets = octets_of(as_one(points[POINT]), 16).tobytes().hex().encode()
    ends = np.arange(points.num_rows + 1, dtype=np.int32) * 32
    digits = pa.StringArray.from_buffers(points.num_rows, pa.py_buffer(ends), pa.py_buffer(octets))
    return points.set_column(0, _KEY, digits)


def _points(digits: pa.ChunkedArray | pa.Array) -> pa.Array:
    """UUIDs of a table."""
    return pa.array([bytes.fromhex(text) for text in digits.to_pylist()], POINT_TYPE)


def _one_table(batch: pa.RecordBatch) -> pa.Table:
    return pa.table({POINT: _points(batch[POINT]), STAMP: batch[STAMP]})


def _hits(rows: pa.Table, scores: NDArray[np.floating]) -> list[Hit]:
    return hits_of(rows.set_column(0, POINT, _points(rows[POINT])), scores)


def _named(points: Sequence[bytes]) -> str:
    """The points with these UUIDs, in SQL."""
    return f"{POINT} IN ({', '.join(f'{point.hex()!r}' for point in points)})"
