"""JSON objects that carry a sum of themselves: no changed byte is taken for what was written.

A disk or a store may give other bytes than it was given, and most changes of one digit leave valid
JSON behind. The sum tells of accidents; whoever may write may seal.
"""

import hashlib
import json
from typing import Any

_SUM = "sha256"


def seal(plain: dict[str, Any], indent: int | None = None) -> str:
    """An object as JSON, with its sum."""
    return json.dumps(plain | {_SUM: _sum_of(plain)}, indent=indent)


def unseal(text: str | bytes) -> dict[str, Any]:
    """The object of that JSON, without its sum.

    Raises:
        ValueError: it is not one, or damaged.
    """
    plain = json.loads(text)
    if not isinstance(plain, dict):
        raise ValueError("it is no JSON object")
    if plain.pop(_SUM, None) != _sum_of(plain):
        raise ValueError("its sum is not that of its content")
    return plain


def _sum_of(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
