"""Conditions as Qdrant's filters.

A payload that has no value fulfils no condition here, `except` included, so that null means what it
does elsewhere; a `must_not` would find it. Numbers and times are equal to what is neither less nor
greater: Qdrant matches texts, whole numbers and truth values alone. Texts it does not order, and
whole numbers it orders as doubles.
"""

import datetime
import re
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from qdrant_client import models

from pipeline.errors import SpecError
from pipeline.index.filters import All, Comparison, Condition, Constant, OneOf
from pipeline.index.layout import RUN

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_EXACT: Final = 2**53
"""Whole numbers below it are doubles."""


def filter_of(condition: Condition | None, among: Sequence[bytes] | None) -> models.Filter | None:
    """What a search may find; None for everything.

    Args:
        condition: on the payload, or None.
        among: UUIDs of the only points, or None.

    Raises:
        SpecError: Qdrant has no such comparison.
    """
    parts: list[models.Condition] = []
    if condition is not None:
        parts.append(_filter(condition))
    if among is not None:
        parts.append(named(among))
    return models.Filter(must=parts) if parts else None


def named(points: Sequence[bytes]) -> models.HasIdCondition:
    """The points with these UUIDs."""
    return models.HasIdCondition(has_id=[str(UUID(bytes=point)) for point in points])


def until(run: int) -> models.FieldCondition:
    """The points that no run later than this one has written."""
    return models.FieldCondition(key=RUN, range=models.Range(lte=run))


def path_of(column: str) -> str:
    """A column's name as a path of Qdrant's, in which dots and brackets lead inwards.

    Raises:
        SpecError: no path leads there.
    """
    if _PLAIN.fullmatch(column):
        return column
    if '"' in column:
        raise SpecError(f"Qdrant finds no column with a quotation mark in its name: {column!r}")
    return f'"{column}"'


def _filter(condition: Condition) -> models.Condition:
    if isinstance(condition, Comparison):
        return _compared(condition.column, condition.operator, condition.value)
    if isinstance(condition, OneOf):
        return _listed(condition)
    parts = [_filter(part) for part in condition.parts]
    return models.Filter(must=parts) if isinstance(condition, All) else models.Filter(should=parts)


def _listed(condition: OneOf) -> models.Condition:
    texts = [value for value in condition.values if isinstance(value, str)]
    wholes = [value for value in condition.values if type(value) is int]
    if texts or wholes:
        match: models.Match = models.MatchAny(any=texts or wholes)
        if condition.is_negated:
            match = models.MatchExcept(**{"except": texts or wholes})
        return models.FieldCondition(key=path_of(condition.column), match=match)
    operator = "!=" if condition.is_negated else "=="
    parts = [_compared(condition.column, operator, value) for value in condition.values]
    if condition.is_negated:
        return models.Filter(must=parts)
    return models.Filter(should=parts)


def _compared(column: str, operator: str, value: Constant) -> models.Condition:
    key = path_of(column)
    if isinstance(value, bool):
        meant = value if operator == "==" else not value
        return models.FieldCondition(key=key, match=models.MatchValue(value=meant))
    if isinstance(value, str | int) and operator in ("==", "!="):
        match: models.Match = models.MatchValue(value=value)
        if operator == "!=":
            match = models.MatchExcept(**{"except": [value]})
        return models.FieldCondition(key=key, match=match)
    if isinstance(value, str):
        raise SpecError(f"--filter: Qdrant does not order texts: {column} {operator} {value!r}")
    if isinstance(value, int) and abs(value) >= _EXACT:
        raise SpecError(
            f"--filter: Qdrant orders whole numbers up to 2**53 alone: {column} {operator} {value}"
        )
    if operator == "!=":
        below, above = _range(key, value, "lt"), _range(key, value, "gt")
        return models.Filter(should=[below, above])
    names = {"==": ("gte", "lte"), "<": ("lt",), "<=": ("lte",), ">": ("gt",), ">=": ("gte",)}
    return _range(key, value, *names[operator])


def _range(key: str, value: float | datetime.datetime, *bounds: str) -> models.FieldCondition:
    chosen = models.DatetimeRange if isinstance(value, datetime.datetime) else models.Range
    return models.FieldCondition(key=key, range=chosen(**dict.fromkeys(bounds, value)))
