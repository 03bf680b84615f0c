"""Collections, conditions and names in PostgreSQL's SQL."""

from collections.abc import Iterator, Sequence

from pgvector import Vector
from psycopg import sql

from pipeline.index.filters import All, Comparison, Condition, OneOf
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
    VectorType,
)
from pipeline.index.store import Question

_TYPES = {
    TEXT: "text",
    WHOLE: "bigint",
    NUMBER: "double precision",
    TRUTH: "boolean",
    TIME: "timestamp with time zone",
}
_INDEXED_IN_FULL = 2000
"""Numbers of a vector of which pgvector makes an index, at most; of half precision, 4,000."""

MAXSIM = (
    "-(SELECT sum(best) FROM (SELECT max(-(t::vector <#> q.v)) AS best FROM unnest({}) t, "
    "unnest({}::vector[]) WITH ORDINALITY q(v, n) GROUP BY q.n) a)"
)


def columns_of(layout: Layout) -> dict[str, str]:
    """Types of all columns, as PostgreSQL spells them."""
    found = {POINT: "uuid", STAMP: "bigint", RUN: "bigint"}
    found |= {name: _TYPES[kind] for name, kind in layout.payload}
    if layout.single is not None:
        found[SINGLE] = f"{kind_of(layout.single)}({layout.single.size})"
    if layout.multi is not None:
        found[MULTI] = f"{kind_of(layout.multi)}({layout.multi.size})[]"
    return found


def creation(collection: str, layout: Layout, comment: str) -> Iterator[sql.Composable]:
    """The statements that make a collection.

    Args:
        collection: its name.
        layout: of its points.
        comment: that says whose it is.
    """
    named = sql.Identifier(collection)
    columns = [
        # texts are ordered as everywhere else, whatever the language of the database
        sql.SQL("{} {}").format(
            sql.Identifier(name), sql.SQL(kind + ' COLLATE "C"' if kind == "text" else kind)
        )
        for name, kind in columns_of(layout).items()
    ]
    yield sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
        named, sql.SQL(", ").join(columns), sql.Identifier(POINT)
    )
    if layout.multi is not None:
        # as pgvector has its own type stored: vectors do not shrink, and trying takes half the time
        yield sql.SQL("ALTER TABLE {} ALTER {} SET STORAGE EXTERNAL").format(
            named, sql.Identifier(MULTI)
        )
    yield sql.SQL("COMMENT ON TABLE {} IS {}").format(named, sql.Literal(comment))
    types = dict(layout.payload)
    for column in layout.indexed:
        # a text may be longer than an entry of a B-tree, and is mostly looked for as it is
        method = sql.SQL("hash" if types[column] == TEXT else "btree")
        yield sql.SQL("CREATE INDEX ON {} USING {} ({})").format(
            named, method, sql.Identifier(column)
        )


def kind_of(vectors: VectorType) -> str:
    """The type of vectors."""
    return "halfvec" if vectors.dtype == "float16" else "vector"


def compared(single: VectorType) -> tuple[sql.Composable, str]:
    """The single vectors as they are compared, and of which type."""
    column = sql.Identifier(SINGLE)
    if single.dtype == "float32" and single.size > _INDEXED_IN_FULL:
        return sql.SQL("{}::halfvec({})").format(column, sql.Literal(single.size)), "halfvec"
    return column, kind_of(single)


def selected(names: Sequence[str]) -> sql.Composable:
    """Columns, UUIDs as bytes."""
    return sql.SQL(", ").join(
        sql.SQL("uuid_send({})" if name == POINT else "{}").format(sql.Identifier(name))
        for name in names
    )


def one_of(points: Sequence[bytes]) -> sql.Composable:
    """The points with these UUIDs, in one order, so that two who lock them do not deadlock."""
    texts = sql.Literal([point.hex() for point in sorted(points)])
    return sql.SQL("{} = ANY ({}::uuid[])").format(sql.Identifier(POINT), texts)


def in_sql(condition: Condition) -> sql.Composable:
    """A condition; null fulfils none, as in SQL."""
    if isinstance(condition, Comparison):
        operator = {"==": "=", "!=": "<>"}.get(condition.operator, condition.operator)
        return sql.SQL("{} {} {}").format(
            sql.Identifier(condition.column), sql.SQL(operator), sql.Literal(condition.value)
        )
    if isinstance(condition, OneOf):
        return sql.SQL("{} {} ({})").format(
            sql.Identifier(condition.column),
            sql.SQL("NOT IN" if condition.is_negated else "IN"),
            sql.SQL(", ").join(map(sql.Literal, condition.values)),
        )
    joined = sql.SQL(" AND " if isinstance(condition, All) else " OR ")
    return sql.SQL("({})").format(joined.join(map(in_sql, condition.parts)))


def insertion(collection: str, staged: str, names: Sequence[str]) -> sql.Composable:
    """Rows of one table into another, but for those that later runs have written there.

    Args:
        collection: the table that they go to.
        staged: the one that they are in.
        names: all columns.
    """
    columns = [sql.Identifier(name) for name in names]
    new = [sql.SQL("{0} = excluded.{0}").format(column) for column in columns]
    return sql.SQL(
        "INSERT INTO {to} ({columns}) SELECT DISTINCT ON ({key}) {columns} FROM {staged} "
        "ORDER BY {key} ON CONFLICT ({key}) DO UPDATE SET {new} WHERE {to}.{run} <= excluded.{run}"
    ).format(
        to=sql.Identifier(collection),
        columns=sql.SQL(", ").join(columns),
        key=sql.Identifier(POINT),
        staged=sql.Identifier(staged),
        new=sql.SQL(", ").join(new),
        run=sql.Identifier(RUN),
    )


def search_sql(
    collection: str, layout: Layout, question: Question, names: Sequence[str]
) -> sql.Composable:
    """The nearest points: some columns, and the score.

    Args:
        collection: that is searched.
        layout: of it.
        question: what is searched for.
        names: the columns.
    """
    conditions = [sql.SQL("{} IS NOT NULL").format(sql.Identifier(question.using))]
    if question.condition is not None:
        conditions.append(in_sql(question.condition))
    if question.among is not None:
        conditions.append(one_of(question.among))
    texts = [Vector(vector).to_text() for vector in question.vectors]
    if question.using == MULTI or layout.single is None:
        distance = sql.SQL(MAXSIM).format(sql.Identifier(MULTI), sql.Literal(texts))
        score = sql.SQL("-d")
    else:
        column, kind = compared(layout.single)
        asked = sql.SQL(f"{{}}::{kind}({layout.single.size})").format(sql.Literal(texts[0]))
        distance, score = sql.SQL("{} <=> {}").format(column, asked), sql.SQL("1 - d")
    # by the distance itself, which an index orders
    nearest = sql.SQL("SELECT *, {} AS d FROM {} WHERE {} ORDER BY d LIMIT {}").format(
        distance,
        sql.Identifier(collection),
        sql.SQL(" AND ").join(conditions),
        sql.Literal(question.most),
    )
    return sql.SQL("SELECT {}, {} FROM ({}) found ORDER BY d").format(
        selected(names), score, nearest
    )
