"""`nightjar runs`: how the last runs went, one line each."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from jobs.printed import printed
from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.runs import Run, list_runs

_HEADS = (
    "began (UTC)",
    "command",
    "ending",
    "version",
    "embedded",
    "linked",
    "aside",
    "tokens",
    "tokens/s",
    "seconds",
    "of it embedding",
    "cost",
    "on",
)
_LEFT = {"began (UTC)", "command", "ending", "on"}


def show(uri: str, last: int, as_json: bool) -> None:
    """The accounts of the last runs, the newest last.

    Args:
        uri: root of the dataset.
        last: how many.
        as_json: whether to print all that is known of each, one JSON object a line.

    Raises:
        OutputError: no run has left one there, or one is damaged.
    """
    runs = list_runs(Folder(uri), last)
    if not runs:
        raise OutputError(f"{uri!r}: no run has left an account there")
    if as_json:
        for run in runs:
            print(json.dumps(asdict(run)))
        return
    table = Table(box=None, pad_edge=False)
    for head in _HEADS:
        table.add_column(head, justify="left" if head in _LEFT else "right", no_wrap=True)
    for run in runs:
        table.add_row(*_cells(run))
    Console(width=200).print(table)
    for run in runs:
        for reason in run.reasons:
            print(f"{_began(run)} {run.ending}: {printed(reason)}")


def _cells(run: Run) -> tuple[str, ...]:
    report = run.report
    counts = (sum(report.get(name, {}).values()) for name in ("embedded", "linked", "quarantined"))
    return (
        _began(run),
        run.command,
        run.ending,
        str(report.get("version", "")),
        *(f"{count:,}" for count in counts),
        f"{report.get('tokens', 0) - report.get('resumed_tokens', 0):,}",
        f"{run.tokens_per_second:,.0f}",
        f"{run.seconds:,.1f}",
        f"{run.phases.get('embed', 0.0):,.1f}",
        "" if run.cost is None else f"{run.cost:,.4g}",
        ", ".join(f"{count} x {device}" for device, count in run.workers.items()),
    )


def _began(run: Run) -> str:
    day, _, time = run.name.partition("T")
    return f"{day[:4]}-{day[4:6]}-{day[6:8]} {time[:2]}:{time[2:4]}"
