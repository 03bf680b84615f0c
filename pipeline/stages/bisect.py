"""Bisect: which rows of a unit a stage cannot do, found by halving, so that all others are done.

A stage answers for the rows it knows to be bad. What is left is a stage that fails as a whole, or
that takes its process with it: then the unit is cut in halves, again and again, until the rows that
do it are alone, and those are set aside.
"""

from collections.abc import Callable

import pyarrow as pa

from pipeline.credentials import redact
from pipeline.errors import NightjarError, Reason

Stage = Callable[[pa.Table], pa.Table]
"""One unit in, one unit out; rows that have a reason are passed on."""

Blame = Callable[[Exception], tuple[Reason, str]]
"""Why a row is set aside of which, alone, the stage fails; it raises where that is not the row's
fault."""

_MESSAGE = 300
"""Characters; a library's message may hold the whole row."""


def bisect(call: Stage, table: pa.Table, stage: str, blame: Blame) -> pa.Table:
    """What a stage makes of a table, with the rows that it fails of set aside.

    Args:
        call: the stage.
        table: with the columns reason, stage and message.
        stage: its name, for the quarantine.
        blame: asked about each row that fails alone.

    Raises:
        NightjarError: of the stage: that is no row's fault.
    """
    try:
        return call(table)
    except NightjarError:
        raise
    except Exception as error:
        if not table.num_rows:
            raise
        if table.num_rows == 1:
            reason, message = blame(error)
            return call(_with_fault(table, str(reason), stage, redact(message)[:_MESSAGE]))
    half = table.num_rows // 2
    parts = (table.slice(0, half), table.slice(half))
    return pa.concat_tables([bisect(call, part, stage, blame) for part in parts])


def blame_row(error: Exception, control: Callable[[], object]) -> tuple[Reason, str]:
    """Blame a row for an exception, provided that the stage can do something else.

    A stage that can do nothing any more would otherwise set the whole corpus aside.

    Args:
        error: what the stage raised for the row alone.
        control: has the stage do something that it can always do.
    """
    try:
        control()
    except Exception:
        raise error from None
    return Reason.UNEXPECTED_ERROR, f"{type(error).__name__}: {error}"


def _with_fault(table: pa.Table, *fault: str) -> pa.Table:
    for name, value in zip(("reason", "stage", "message"), fault, strict=True):
        at = table.schema.get_field_index(name)
        column = pa.array([value] * table.num_rows, pa.string())
        table = table.set_column(at, table.schema.field(at), column)
    return table
