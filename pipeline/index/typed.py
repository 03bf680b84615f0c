"""Conditions made to fit the columns that they ask for: every store compares like with like.

What is typed for a column of texts is a text, for one of times a text in ISO 8601: without a zone
it is UTC. Whole numbers are compared with whole numbers, so that none is rounded on the way.
"""

import datetime
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pyarrow as pa

from pipeline.errors import SpecError
from pipeline.index.filters import All, Any, Comparison, Condition, Constant
from pipeline.index.layout import NUMBER, TEXT, TIME, TRUTH, WHOLE

_LEAST, _GREATEST = -(2**63), 2**63 - 1


def typed(condition: Condition, types: Mapping[str, pa.DataType]) -> Condition:
    """The same condition, its constants of the types of their columns.

    Args:
        condition: as it was typed.
        types: of all columns that there are, those of a payload.

    Raises:
        SpecError: there is no such column, or it is not compared with such a constant.
    """
    if isinstance(condition, All | Any):
        return replace(condition, parts=tuple(typed(part, types) for part in condition.parts))
    name = condition.column
    if name not in types:
        raise SpecError(f"--filter: there is no column {name!r}; those are {', '.join(types)}")
    kind = types[name]
    if isinstance(condition, Comparison):
        if kind == TRUTH and condition.operator not in ("==", "!="):
            raise SpecError(f"--filter: {name!r} is true or false, and neither is the greater")
        return replace(condition, value=_fitting(condition.value, name, kind))
    return replace(condition, values=tuple(_fitting(one, name, kind) for one in condition.values))


def _fitting(value: Constant, name: str, kind: pa.DataType) -> Constant:
    meant, fit = _KINDS[kind]
    found = fit(value)
    if found is None:
        raise SpecError(f"--filter: {name!r} is compared with {meant}, and {value!r} is none")
    return found


def _text(value: Constant) -> str | None:
    """A text that UTF-8 has: a lone surrogate no store takes."""
    if not isinstance(value, str) or value.encode(errors="replace").decode() != value:
        return None
    return value


def _whole(value: Constant) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if _LEAST <= value <= _GREATEST else None


def _number(value: Constant) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _truth(value: Constant) -> bool | None:
    return value if isinstance(value, bool) else None


def _time(value: Constant) -> datetime.datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.datetime.fromisoformat(value)
        if found.tzinfo is None:
            return found.replace(tzinfo=datetime.UTC)
        return found.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


_KINDS: dict[pa.DataType, tuple[str, Callable[[Constant], Constant | None]]] = {
    TEXT: ('a text, such as "en"', _text),
    WHOLE: ("a whole number of 64 bits", _whole),
    NUMBER: ("a number", _number),
    TRUTH: ("True or False", _truth),
    TIME: ('a time, such as "2026-11-26" or "2026-11-26T14:00+01:00"', _time),
}
