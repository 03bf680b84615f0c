"""The vocabulary of a job: five public tasks, each an adapter plus a prompt prefix, and your own.

The names are those of the vendor's API. The part before the dot picks the LoRA adapter, the part
after it the prompt prefix that is put before a text ("Query: ..." or "Passage: ..."). Images carry
no prefix. `text-matching` is symmetric and always uses the query prefix, as the model's
documentation says (its reference code follows that only when the task is set on the model).

An adapter that somebody has trained has two tasks, `ADAPTER.query` and `ADAPTER.passage`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import SpecError


class Modality(StrEnum):
    """What an embedding was made from."""

    TEXT = "text"
    IMAGE = "image"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One public task."""

    name: str
    """What users write, for example `retrieval.passage`."""
    adapter: str
    """The LoRA adapter to merge; also the name of the actor pool."""
    prefix: str
    """Put before every text, separator included."""


PREFIXES: dict[str, str] = {"query": "Query: ", "passage": "Passage: "}
"""What each prompt puts before a text."""

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(name="retrieval.query", adapter="retrieval", prefix="Query: "),
        Task(name="retrieval.passage", adapter="retrieval", prefix="Passage: "),
        Task(name="code.query", adapter="code", prefix="Query: "),
        Task(name="code.passage", adapter="code", prefix="Passage: "),
        Task(name="text-matching", adapter="text-matching", prefix="Query: "),
    )
}

ADAPTERS: tuple[str, ...] = tuple(dict.fromkeys(task.adapter for task in TASKS.values()))

ADAPTER_PATTERN = r"[a-z0-9][a-z0-9-]{0,62}"
"""What an adapter may be called."""
EXPECTED = f"one of {', '.join(TASKS)}, or query or passage of an adapter of your own"
"""What a task's name is to be, as the end of a sentence."""
_ADAPTER = re.compile(ADAPTER_PATTERN)


def find_task(name: str | None) -> Task | None:
    """The task of that name, one of the five or of an adapter of one's own; None for others."""
    if name is None:
        return None
    if name in TASKS:
        return TASKS[name]
    adapter, _, prompt = name.partition(".")
    if adapter in ADAPTERS or prompt not in PREFIXES or not _ADAPTER.fullmatch(adapter):
        return None
    return Task(name=name, adapter=adapter, prefix=PREFIXES[prompt])


def task_named(name: str, field: str = "task") -> Task:
    """The task of that public name.

    Raises:
        SpecError: no such task; the sentence lists the five.
    """
    task = find_task(name)
    if task is None:
        raise SpecError(f"{field}: {name!r} is not a task; expected {EXPECTED}")
    return task


def tasks_of(adapter: str) -> tuple[Task, ...]:
    """The tasks of an adapter; the query's side comes first, where there are two."""
    found = tuple(task for task in TASKS.values() if task.adapter == adapter)
    return found or tuple(task_named(f"{adapter}.{prompt}") for prompt in PREFIXES)


def answering(task: Task) -> Task:
    """The task of the rows that queries of a task are to find: the passages of its adapter.

    `text-matching`, which has no sides, finds its own. Rows that were embedded as queries answer
    nothing.
    """
    return find_task(f"{task.adapter}.passage") or task
