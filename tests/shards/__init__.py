"""Planning and reading together, as the flow does it, for the tests of every format."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.spec import JobSpec
from pipeline.stages.plan import Plan, plan_work
from pipeline.stages.source import read_units
from pipeline.tasks import ADAPTERS, TASKS
from pipeline.work import WorkUnit

ROUTINGS = (*TASKS, "no-such-task", None)
"""What a routing column may hold."""


def job(source: object, unit_rows: int | str = "auto") -> JobSpec:
    """A spec of that source, or of a list of them."""
    return JobSpec.model_validate(
        {
            "name": "test",
            "model": {"path": "unused"},
            "source": source,
            "output": {"uri": "unused"},
            "compute": {"unit_rows": unit_rows},
            # what is read of a payload is counted, and ids are of no matter in most tests
            "limits": {"duplicate_ids": "keep"},
        }
    )


@dataclass(frozen=True, kw_only=True)
class ReadAll:
    """Everything a plan leads to."""

    plan: Plan
    units: list[tuple[WorkUnit, pa.Table]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of all units, in the order of the source."""
        rows = [row for _, table in self.units for row in table.to_pylist()]
        return sorted(rows, key=lambda row: row["row"])

    def column(self, name: str) -> list[Any]:
        """One column of all rows, in the order of the source."""
        return [row[name] for row in self.rows]


def groups_of(plan: Plan) -> list[list[WorkUnit]]:
    """Units of one segment and adapter, which are read together."""
    groups: dict[tuple[Any, str], list[WorkUnit]] = {}
    for unit in plan.units:
        groups.setdefault((unit.segment, unit.adapter), []).append(unit)
    return list(groups.values())


def read_all(source: object, unit_rows: int | str = "auto") -> ReadAll:
    """Plan a source and read every unit of it."""
    spec = job(source, unit_rows)
    plan = plan_work(spec, 602112)
    units: list[tuple[WorkUnit, pa.Table]] = []
    for group in groups_of(plan):
        read = read_units(
            spec.sources[group[0].segment.source], group, plan.id_type, list(plan.kept)
        )
        units += read
    return ReadAll(plan=plan, units=units)


def adapter_of(task: str | None) -> str:
    """Where a row of that task must go; one without a task goes along with the first adapter."""
    return TASKS[task].adapter if task in TASKS else ADAPTERS[0]


def assert_each_row_is_read_once(
    found: ReadAll, tasks: Sequence[str | None], unit_rows: int
) -> None:
    """The units cover each row once, in order, in the right lane, and know how many they have.

    Args:
        found: what was read of one shard.
        tasks: of each row of the shard.
        unit_rows: the most rows of a unit.
    """
    seen: list[int] = []
    for unit, table in found.units:
        numbers = table["row"].to_pylist()
        assert len(numbers) == unit.rows, "the unit says how many rows it has"
        assert 0 < len(numbers) <= unit_rows
        assert numbers == sorted(numbers), "in order within a unit"
        assert {adapter_of(tasks[number]) for number in numbers} == {unit.adapter}
        assert table["task"].to_pylist() == [tasks[number] for number in numbers]
        seen += numbers
    assert sorted(seen) == list(range(len(tasks)))
    assert found.plan.rows == len(tasks)
