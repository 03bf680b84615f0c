"""The newest results as one table and one chart, for the README.

Nothing is measured here: every number is read from the dated records beside the scripts.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from benchmarks.record import RESULTS

CHART = "summary.png"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One program beside the baseline of its comparison."""

    record: str
    """Name of the file it is read from."""
    dtype: str
    """What all programs computed in."""
    comparison: str
    """What was done."""
    program: str
    """Who did it."""
    baseline: str
    """Who is 1.0."""
    wall: float
    """Times as long on the wall: the median over the turns."""
    cpu: float
    """Times as many CPU seconds, likewise."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table as Markdown and write the chart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args(arguments).results
    print(table(folder))
    _draw(list(_lines(folder)), folder / CHART)


def table(folder: Path) -> str:
    """The newest results of a folder as Markdown."""
    heading = "| what | dtype | program | beside | wall | CPU |\n|---|---|---|---|---|---|"
    rows = (
        f"| {line.comparison} | {line.dtype} | {line.program} | {line.baseline} "
        f"| {line.wall:.2f} | {line.cpu:.2f} |"
        for line in _lines(folder)
    )
    return "\n".join([heading, *rows])


def _lines(folder: Path) -> Iterator[Line]:
    newest: dict[tuple[str, str], Path] = {}
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        if "comparisons" in record:
            newest[record["name"], record["config"]["dtype"]] = file
    for (_, dtype), file in sorted(newest.items()):
        record: dict[str, Any] = json.loads(file.read_text())
        for comparison in record["comparisons"]:
            for program, ratio in comparison["ratios"].items():
                yield Line(
                    record=file.name,
                    dtype=dtype,
                    comparison=comparison["name"],
                    program=program,
                    baseline=comparison["baseline"],
                    wall=ratio["wall"],
                    cpu=ratio["cpu"],
                )


def _draw(lines: Sequence[Line], file: Path) -> None:
    """Bars on a logarithmic axis: 1 is as fast as the baseline."""
    shown = lines[::-1]
    figure = Figure(figsize=(11, 1.2 + 0.32 * len(shown)), layout="constrained")
    axes = figure.subplots()
    names = [f"{line.comparison} ({line.dtype})\n{line.program}" for line in shown]
    places = range(len(shown))
    for offset, label, colour, values in (
        (0.2, "wall seconds", "#2f6f8f", [line.wall for line in shown]),
        (-0.2, "CPU seconds", "#9fc3d4", [line.cpu for line in shown]),
    ):
        bars = axes.barh(
            [at + offset for at in places], values, height=0.38, label=label, color=colour
        )
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(list(places), names, fontsize=7)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 4, 8, 16, 32, 64, 128]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("times as long as the program beside it (median of the turns)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
