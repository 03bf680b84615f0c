"""The progress of a run, on standard error: bars on a terminal, plain lines elsewhere.

How long each worker took to load the model is a line of its own.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline.stages.told import Progress as Run
from pipeline.stages.watchdog import Watch

_PLAIN_SECONDS = 5.0


@contextmanager
def display(rows: Mapping[str, int]) -> Iterator[Watch]:
    """Show counts as they come.

    Args:
        rows: source rows planned, by adapter.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _loads_too(_plain(rows), partial(print, file=sys.stderr))
        return
    with Progress(
        TextColumn("{task.description:>15}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} rows"),
        TextColumn("{task.fields[tokens]:,} tokens, {task.fields[pace]:,.0f}/s"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        # an address is no markup
        yield _loads_too(
            _bars(progress, rows),
            lambda line: progress.console.print(escape(line), highlight=False),
        )


def _loads_too(counts: Watch, say: Callable[[str], object]) -> Watch:
    """Besides the counts, a line for each time that a worker has loaded the model."""
    said = 0

    def watch(run: Run) -> None:
        nonlocal said
        for load in run.loads[said:]:
            say(load.sentence())
        said = max(said, len(run.loads))
        counts(run)

    return watch


def _bars(progress: Progress, rows: Mapping[str, int]) -> Watch:
    started = time.monotonic()
    bars: dict[str, TaskID] = {
        adapter: progress.add_task(adapter, total=count, tokens=0, pace=0.0)
        for adapter, count in rows.items()
    }
    total = progress.add_task("all", total=sum(rows.values()), tokens=0, pace=0.0)

    def watch(run: Run) -> None:
        tallies = run.tallies
        seconds = max(time.monotonic() - started, 1e-3)
        for adapter, tally in tallies.items():
            progress.update(
                bars[adapter],
                completed=tally.rows,
                tokens=tally.tokens,
                pace=tally.tokens / seconds,
            )
        tokens = sum(tally.tokens for tally in tallies.values())
        done = sum(tally.rows for tally in tallies.values())
        progress.update(total, completed=done, tokens=tokens, pace=tokens / seconds)

    return watch


def _plain(rows: Mapping[str, int]) -> Watch:
    started = last = time.monotonic()
    total, told_end = sum(rows.values()), False

    def watch(run: Run) -> None:
        nonlocal last, told_end
        now, tallies = time.monotonic(), run.tallies
        done = sum(tally.rows for tally in tallies.values())
        finished = done >= total
        if not done or told_end or (now - last < _PLAIN_SECONDS and not finished):
            return
        last, seconds, told_end = now, now - started, finished
        tokens = sum(tally.tokens for tally in tallies.values())
        left = seconds / done * (total - done)
        pools = ", ".join(f"{name} {tally.rows:,}" for name, tally in sorted(tallies.items()))
        print(
            f"{done:,} of {total:,} rows ({pools}), {tokens:,} tokens, "
            f"{tokens / seconds:,.0f} tokens/s, {left:.0f} s left",
            file=sys.stderr,
        )

    return watch
