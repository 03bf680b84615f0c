"""Filters: conditions on the payload, written once and understood by every store.

    lang == "en" and (year >= 2020 or title in ["a", "b"]) and not draft

What is typed is an expression of Python's grammar, read by Python's own parser, of which nothing
but comparisons of a column with a constant, `in`, `and`, `or` and `not` is taken; nothing is ever
evaluated. A column without a value, null, fulfils no comparison: `not` turns only what is known, as
in SQL, and is carried inwards here, so that a store needs to know only the opposites.
"""

import ast
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import SpecError

Constant = str | int | float | bool | datetime.datetime
"""With a column, as `typed.typed` makes it: of times, one with a zone."""
Operator = Literal["==", "!=", "<", "<=", ">", ">="]

_OPERATORS: dict[type[ast.cmpop], Operator] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_OPPOSITE: dict[Operator, Operator] = {
    "==": "!=",
    "!=": "==",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
}
_MIRRORED: dict[Operator, Operator] = {
    "==": "==",
    "!=": "!=",
    "<": ">",
    ">": "<",
    "<=": ">=",
    ">=": "<=",
}
_MEANT = 'expected comparisons such as lang == "en" and year >= 2020'


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A column, not null, compared with a constant."""

    column: str
    """Of the payload."""
    operator: Operator
    """How."""
    value: Constant
    """With what."""


@dataclass(frozen=True, kw_only=True)
class OneOf:
    """A column that has one of some values, or, turned round, has another and is not null."""

    column: str
    """Of the payload."""
    values: tuple[Constant, ...]
    """At least one, all of one type."""
    is_negated: bool
    """Whether none of them is meant."""


@dataclass(frozen=True, kw_only=True)
class All:
    """Conditions that all hold."""

    parts: tuple["Condition", ...]
    """At least two."""


@dataclass(frozen=True, kw_only=True)
class Any:
    """Conditions of which one holds."""

    parts: tuple["Condition", ...]
    """At least two."""


Condition = Comparison | OneOf | All | Any


def parse_filter(text: str) -> Condition:
    """The condition that was typed.

    Raises:
        SpecError: it is none, in one sentence.
    """
    try:
        return _condition(ast.parse(text.strip(), mode="eval").body, False)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SpecError(f"--filter: {text!r} cannot be read; {_MEANT}") from None


def columns_of(condition: Condition) -> Iterator[str]:
    """The columns that a condition asks for, as often as it does."""
    if isinstance(condition, All | Any):
        for part in condition.parts:
            yield from columns_of(part)
    else:
        yield condition.column


def _condition(node: ast.expr, negated: bool) -> Condition:
    match node:
        case ast.BoolOp(op=operator, values=values):
            return _joined(
                isinstance(operator, ast.And) is not negated,
                [_condition(value, negated) for value in values],
            )
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _condition(operand, not negated)
        case ast.Name(id=column):
            return Comparison(column=column, operator="==", value=not negated)
        case ast.Compare(left=left, ops=operators, comparators=others):
            sides = [left, *others]
            parts = [
                _compared(sides[at], operator, sides[at + 1], negated)
                for at, operator in enumerate(operators)
            ]
            return parts[0] if len(parts) == 1 else _joined(not negated, parts)
    raise _refused(node)


def _joined(all_of_them: bool, parts: list[Condition]) -> Condition:
    return All(parts=tuple(parts)) if all_of_them else Any(parts=tuple(parts))


def _compared(left: ast.expr, operator: ast.cmpop, right: ast.expr, negated: bool) -> Condition:
    found = _OPERATORS.get(type(operator))
    match left, right:
        case ast.Name(id=column), ast.List(elts=cells) | ast.Tuple(elts=cells) if isinstance(
            operator, ast.In | ast.NotIn
        ):
            values = tuple(map(_constant, cells))
            if not values or len({type(value) for value in values}) > 1:
                raise SpecError(
                    f"--filter: the list after {column!r} is empty, or its values are not of one "
                    "type"
                )
            is_negated = isinstance(operator, ast.NotIn) is not negated
            return OneOf(column=column, values=values, is_negated=is_negated)
        case ast.Name(id=column), constant if found is not None:
            how = _OPPOSITE[found] if negated else found
            return Comparison(column=column, operator=how, value=_constant(constant))
        case constant, ast.Name(id=column) if found is not None:
            how = _MIRRORED[_OPPOSITE[found] if negated else found]
            return Comparison(column=column, operator=how, value=_constant(constant))
    raise _refused(right)


def _constant(node: ast.expr) -> Constant:
    match node:
        case ast.Constant(value=str() | bool() | int() | float() as value):
            return value
        case ast.Name(id="true" | "false" as name):
            return name == "true"
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    raise _refused(node)


def _refused(node: ast.expr) -> SpecError:
    return SpecError(f"--filter: {ast.unparse(node)!r} is not understood; {_MEANT}")
