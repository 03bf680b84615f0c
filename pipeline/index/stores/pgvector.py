"""PostgreSQL with pgvector: a table for each collection, and a view of the alias's name.

Points come by binary COPY, the rows packed here: as values of the client they take ten times as
long. A new collection is copied into; into one that is there, points go through a temporary table
and one INSERT .. ON CONFLICT, in the order of their keys, since writers in different orders
deadlock. Where the alias leads is changed in one transaction.

Every search is exact, unless the layout asks for an index: HNSW, of half the precision where the
vectors have more numbers than pgvector indexes in full. MaxSim is computed by the server, over all
points that the condition leaves: it is for candidates.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg import errors, sql

from pipeline.errors import CollectionError, StoreFailed
from pipeline.index.layout import (
    POINT,
    POINT_TYPE,
    RUN,
    STAMP,
    Layout,
    differing,
)
from pipeline.index.store import Bounds, Busy, Hit, Question, Refused, hits_of
from pipeline.index.stores.pgvector_copy import copy_points
from pipeline.index.stores.pgvector_sql import (
    columns_of,
    compared,
    creation,
    insertion,
    one_of,
    search_sql,
    selected,
)
from pipeline.index.stores.pgvector_view import replace_view

_OWNER = "nightjar "
_LEADS = "nightjar leads to "
_SCANNED = 50_000
_LOOKED_AT, _MOST_LOOKED_AT = 100, 1_000
"""Points that HNSW keeps in view: the more, the nearer to exact; pgvector has no more than that."""
_NEVER = (psycopg.DataError, psycopg.IntegrityError, errors.ProgramLimitExceeded)
"""What a server says of values that it will not take."""


class Pgvector:
    """A database of PostgreSQL."""

    bounds = Bounds(batch_bytes=8 << 20, batch_points=5_000, at_once=3)

    def __init__(self, url: str, secret: str | None) -> None:
        """Connect.

        Args:
            url: as libpq takes it, without a password.
            secret: the password.

        Raises:
            StoreFailed: nobody answers there, or not to us.
        """
        self._url = url
        self._secret = secret
        self._mine = threading.local()
        self._all: list[psycopg.Connection[Any]] = []
        try:
            with psycopg.connect(url, password=secret, autocommit=True) as first:
                first.execute("CREATE EXTENSION IF NOT EXISTS vector")
            self._connection()
        except psycopg.Error as error:
            raise StoreFailed(f"store.url: {url!r} cannot be used: {_brief(error)}") from error

    def owner(self, collection: str) -> str | None:
        """See `VectorStore`."""
        kind, comment = self._relation(collection)
        if kind is None:
            return None
        if kind != "r" or comment is None or not comment.startswith(_OWNER):
            raise CollectionError(
                f"store.collection: {collection!r} is a relation that Nightjar has not made; "
                "choose another name"
            )
        return comment.removeprefix(_OWNER)

    def create(self, collection: str, layout: Layout, owner: str) -> None:
        """See `VectorStore`."""
        try:
            with self._told() as connection, connection.transaction():
                for statement in creation(collection, layout, _OWNER + owner):
                    connection.execute(statement)
        except errors.DuplicateTable as error:
            raise CollectionError(f"the table {collection!r} is there already") from error

    def demand_fit(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`."""
        with self._told() as connection:
            rows = connection.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                [collection],
            )
            there, wanted = dict(rows.fetchall()), columns_of(layout)
        if there != wanted:
            raise differing(collection, wanted=wanted, there=there)

    def drop(self, collection: str) -> None:
        """See `VectorStore`."""
        query = sql.SQL("DROP TABLE IF EXISTS {} CASCADE").format(sql.Identifier(collection))
        with self._told() as connection:
            connection.execute(query)

    def load(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`."""
        try:
            with self._told() as connection, connection.transaction():
                copy_points(connection, collection, points)
        except _Repeated:
            # rows that share a key, or an answer that was lost
            self.upsert(collection, points)

    def upsert(self, collection: str, points: pa.Table) -> None:
        """See `VectorStore`."""
        staged = f"nightjar_stage_{collection}"
        with self._told() as connection, connection.transaction():
            connection.execute(
                sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS TABLE {} WITH NO DATA").format(
                    sql.Identifier(staged), sql.Identifier(collection)
                )
            )
            copy_points(connection, staged, points)
            connection.execute(insertion(collection, staged, points.schema.names))

    def delete(self, collection: str, points: pa.Array, run: int) -> None:
        """See `VectorStore`."""
        with self._told() as connection:
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE {} <= {} AND {}").format(
                    sql.Identifier(collection),
                    sql.Identifier(RUN),
                    sql.Literal(run),
                    one_of(points.to_pylist()),
                )
            )

    def count(self, collection: str) -> int:
        """See `VectorStore`."""
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(collection))
        ((found,),) = self._rows(query)
        return int(found)

    def scan(self, collection: str) -> Iterator[pa.Table]:
        """See `VectorStore`."""
        query = sql.SQL("SELECT uuid_send({}), {} FROM {}").format(
            sql.Identifier(POINT), sql.Identifier(STAMP), sql.Identifier(collection)
        )
        with (
            self._told() as connection,
            connection.transaction(),
            connection.cursor(name="scan", binary=True) as cursor,
        ):
            cursor.execute(query)
            while rows := cursor.fetchmany(_SCANNED):
                points, told = zip(*rows, strict=True)
                yield pa.table(
                    {POINT: pa.array(points, POINT_TYPE), STAMP: pa.array(told, pa.int64())}
                )

    def fetch(self, collection: str, layout: Layout, points: Sequence[bytes]) -> pa.Table:
        """See `VectorStore`."""
        names = layout.schema.names
        query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
            selected(names), sql.Identifier(collection), one_of(points)
        )
        plain = [dict(zip(names, map(_plain, row), strict=True)) for row in self._rows(query)]
        return pa.Table.from_pylist(plain, layout.schema)

    def settle(self, collection: str, layout: Layout) -> None:
        """See `VectorStore`."""
        named = sql.Identifier(collection)
        with self._told() as connection:
            if layout.approximate and layout.single is not None:
                column, kind = compared(layout.single)
                connection.execute(
                    sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (({}) {})").format(
                        sql.Identifier(f"{collection}_nearest"),
                        named,
                        column,
                        sql.SQL(f"{kind}_cosine_ops"),
                    )
                )
            connection.execute(sql.SQL("ANALYZE {}").format(named))

    def search(self, collection: str, layout: Layout, question: Question) -> list[Hit]:
        """See `VectorStore`."""
        names = [POINT, *(name for name, _ in layout.payload)]
        query = search_sql(collection, layout, question, names)
        with self._told() as connection, connection.transaction():
            if layout.approximate:
                # else it looks at 40 points, and a filter or a LIMIT above leaves fewer than asked
                looked_at = min(max(question.most, _LOOKED_AT), _MOST_LOOKED_AT)
                connection.execute(f"SET LOCAL hnsw.ef_search = {looked_at}")
                connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            rows = connection.execute(query).fetchall()
        plain = [dict(zip(names, row[:-1], strict=True)) for row in rows]
        scores = [row[-1] for row in rows]
        return hits_of(
            pa.Table.from_pylist(plain, layout.schema.empty_table().select(names).schema), scores
        )

    def live(self, alias: str) -> str | None:
        """See `VectorStore`."""
        kind, comment = self._relation(alias)
        is_ours = kind == "v" and comment is not None and comment.startswith(_LEADS)
        return str(comment).removeprefix(_LEADS) if is_ours else None

    def lead(self, alias: str, collection: str) -> None:
        """See `VectorStore`."""
        named = sql.Identifier(alias)
        with self._told() as connection, connection.transaction():
            kind, _ = self._relation(alias)
            if kind is not None and self.live(alias) is None:
                raise CollectionError(
                    f"store.collection: {alias!r} is a relation that Nightjar has not made; choose "
                    "another name"
                )
            replace_view(connection, alias, collection)
            comment = sql.Literal(_LEADS + collection)
            connection.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(named, comment))

    def close(self) -> None:
        """See `VectorStore`."""
        for connection in self._all:
            connection.close()

    def _connection(self) -> "psycopg.Connection[Any]":
        """One for each thread: what a thread copies, no other waits for."""
        mine = getattr(self._mine, "connection", None)
        if mine is None or mine.closed:
            mine = psycopg.connect(self._url, password=self._secret, autocommit=True)
            register_vector(mine)
            self._mine.connection = mine
            self._all.append(mine)
        return mine

    def _relation(self, name: str) -> tuple[str | None, str | None]:
        """The kind and the comment of what has a name; None for nothing."""
        query = sql.SQL(
            "SELECT relkind::text, obj_description(oid, 'pg_class') FROM pg_class "
            "WHERE oid = to_regclass({})"
        )
        found = self._rows(query.format(sql.Literal(sql.Identifier(name).as_string(None))))
        kind, comment = found[0] if found else (None, None)
        return kind, comment

    def _rows(self, query: sql.Composable) -> list[tuple[Any, ...]]:
        with self._told() as connection:
            found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
            return found

    @contextmanager
    def _told(self) -> "Iterator[psycopg.Connection[Any]]":
        """Tell what may go well later from what never will."""
        try:
            yield self._connection()
        except errors.UniqueViolation as error:
            raise _Repeated from error
        except _NEVER as error:
            raise Refused(_brief(error)) from error
        except (psycopg.OperationalError, errors.InternalError_) as error:
            raise Busy(_brief(error)) from error


class _Repeated(Exception):
    """A key is there already."""


def _plain(value: Any) -> Any:
    """A cell as Arrow takes it."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, HalfVector):
        return value.to_numpy().astype(np.float16)
    return value.to_numpy() if isinstance(value, Vector) else value


def _brief(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
