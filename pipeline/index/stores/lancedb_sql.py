"""Conditions in LanceDB's SQL, which is DataFusion's."""

import datetime

import pyarrow as pa

from pipeline.index.filters import All, Comparison, Condition, Constant, OneOf
from pipeline.index.layout import TIME


def in_sql(condition: Condition) -> str:
    """A condition; null fulfils none, as in SQL."""
    if isinstance(condition, Comparison):
        operator = "=" if condition.operator == "==" else condition.operator
        return f"{_quoted(condition.column)} {operator} {literal(condition.value)}"
    if isinstance(condition, OneOf):
        values = ", ".join(map(literal, condition.values))
        how = "NOT IN" if condition.is_negated else "IN"
        return f"{_quoted(condition.column)} {how} ({values})"
    joined = " AND " if isinstance(condition, All) else " OR "
    return joined.join(f"({in_sql(part)})" for part in condition.parts)


def _quoted(column: str) -> str:
    return "`" + column.replace("`", "``") + "`"


def literal(value: Constant) -> str:
    """A constant."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        return f"to_timestamp_micros({pa.scalar(value, TIME).value})"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
