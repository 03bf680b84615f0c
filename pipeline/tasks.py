"""The fixed vocabulary of a job: five public tasks, each an adapter plus a prompt prefix.

The names are those of the vendor's API. The part before the dot picks the LoRA adapter, the part
after it the prompt prefix that is put before a text ("Query: ..." or "Passage: ..."). Images carry
no prefix. `text-matching` is symmetric and always uses the query prefix, as the model's
documentation says (its reference code follows that only when the task is set on the model).
"""

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


def task_named(name: str, field: str = "task") -> Task:
    """The task of that public name.

    Raises:
        SpecError: no such task; the sentence lists the five.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise SpecError(
            f"{field}: {name!r} is not a task; expected one of {', '.join(TASKS)}"
        ) from None


def answering(task: Task) -> Task:
    """The task of the rows that queries of a task are to find: the passages of its adapter.

    `text-matching`, which has no sides, finds its own. Rows that were embedded as queries answer
    nothing.
    """
    return TASKS.get(f"{task.adapter}.passage", task)


def adapter_for(task_name: str | None) -> str:
    """The adapter whose pool takes a row of that task.

    A row whose task does not exist goes along with the first adapter's, to be quarantined there.
    """
    task = TASKS.get(task_name) if task_name is not None else None
    return ADAPTERS[0] if task is None else task.adapter
