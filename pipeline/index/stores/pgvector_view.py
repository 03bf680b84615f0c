"""The view of an alias, by which readers of PostgreSQL get a collection."""

from typing import Any

from psycopg import Connection, errors, sql

from pipeline.errors import CollectionError

_GRANTS = (
    "SELECT format('GRANT %%s ON %%s TO %%s', privilege_type, oid::regclass, "
    "CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END) "
    "FROM pg_class, aclexplode(relacl) "
    "WHERE oid = to_regclass(quote_ident(%s)) AND grantee <> relowner"
)
"""Statements that let others read a view of a name again."""


def replace_view(connection: "Connection[Any]", alias: str, collection: str) -> None:
    """Have a view show a table; whoever could read it still can.

    Args:
        connection: in a transaction.
        alias: the view's name; it may be there.
        collection: the table.

    Raises:
        CollectionError: the table has other columns, and other views need those of before.
    """
    named = sql.Identifier(alias)
    view = sql.SQL("VIEW {} AS TABLE {}").format(named, sql.Identifier(collection))
    try:
        with connection.transaction():
            connection.execute(sql.SQL("CREATE OR REPLACE {}").format(view))
    except errors.InvalidTableDefinition:
        # other columns: it has to be made anew
        granted = connection.execute(_GRANTS, [alias]).fetchall()
        _drop(connection, alias)
        connection.execute(sql.SQL("CREATE {}").format(view))
        for (grant,) in granted:
            connection.execute(grant)


def _drop(connection: "Connection[Any]", alias: str) -> None:
    try:
        connection.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(alias)))
    except errors.DependentObjectsStillExist as error:
        others = " ".join(str(error.diag.message_detail).split())
        raise CollectionError(
            f"store.collection: the view {alias!r} is to have other columns, and others are made "
            f"from it: {others}; drop those first, or choose another name"
        ) from error
