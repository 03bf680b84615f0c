"""A query set: what users ask, and which documents they should find.

{"query": "bird that hunts moths", "relevant": ["doc-7", "doc-9"]}
{"query": "parse a date", "relevant": {"doc-3": 2, "doc-4": 1}, "task": "code.query"}
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import SpecError
from pipeline.storage import read_object
from pipeline.tasks import EXPECTED, find_task

KEY = "nightly.gate.queries"
_TASK = "retrieval.query"


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query."""

    text: str
    """What is asked."""
    task: str
    """The public task whose prompt it has; it is asked of the rows of the same adapter."""
    relevant: Mapping[str, float]
    """How relevant documents are, by id as text, each above 0."""


def read_queries(uri: str) -> list[Query]:
    """The queries of a JSONL file.

    Raises:
        SpecError: it is not there, or a line of it is no query.
    """
    try:
        lines = read_object(uri).splitlines()
    except FileNotFoundError:
        raise SpecError(f"{KEY}: {uri!r} is not there") from None
    except OSError as error:
        raise SpecError(f"{KEY}: {uri!r} cannot be read: {error}") from error
    queries = [
        _query(f"{KEY}: {uri!r}, line {number}", line)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not queries:
        raise SpecError(f"{KEY}: {uri!r} has no queries")
    return queries


def _query(where: str, line: bytes) -> Query:
    try:
        plain: dict[str, Any] = json.loads(line)
        text, relevant, task = plain["query"], plain["relevant"], plain.get("task", _TASK)
        if not isinstance(relevant, dict | list):
            raise TypeError("relevant is neither a list nor an object")
        grades = relevant if isinstance(relevant, dict) else dict.fromkeys(map(str, relevant), 1)
        relevant = {name: float(grade) for name, grade in grades.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise SpecError(
            f'{where} is not {{"query": text, "relevant": [ids] or {{id: grade}}}}: {why}'
        ) from None
    if not isinstance(text, str) or not text.strip():
        raise SpecError(f"{where}: the query is empty")
    if find_task(task) is None:
        raise SpecError(f"{where}: {task!r} is not a task; expected {EXPECTED}")
    if not relevant or not all(0 < grade < math.inf for grade in relevant.values()):
        raise SpecError(f"{where}: nothing is relevant to it, or with a grade that is not above 0")
    return Query(text=text, task=task, relevant=relevant)
