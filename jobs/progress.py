"""The progress of a run, on standard error: bars on a terminal, plain lines elsewhere.

A run on a cluster says plain lines, and whoever follows it from a terminal sees bars made of them:
`told` and `read` are each other's inverse. How long each worker took to load the model is a line of
its own.
"""

import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.stages.told import Progress as Run
from pipeline.stages.watchdog import Watch

CHECKED = "checked"
"""How the line begins that a run on a cluster says before it embeds anything."""
_PLAIN_SECONDS = 5.0
_COUNT = r"[\d,]+"
_PART = rf"(?P<name>[\w-]+) (?P<done>{_COUNT}) of (?P<all>{_COUNT})"
_LINE = re.compile(
    rf"{_COUNT} of {_COUNT} rows \((?P<pools>.+)\), (?P<tokens>{_COUNT}) tokens, "
    rf"(?P<pace>{_COUNT}) tokens/s, {_COUNT} s left"
)


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a run is, for a person."""

    done: Mapping[str, int]
    """Source rows that are done, by adapter."""
    planned: Mapping[str, int]
    """Source rows to be done, likewise."""
    tokens: int
    """Embedded so far."""
    pace: int
    """Tokens a second."""


def told(state: State) -> str:
    """A state in one line."""
    done, planned = sum(state.done.values()), sum(state.planned.values())
    parts = (
        f"{name} {state.done.get(name, 0):,} of {rows:,}"
        for name, rows in sorted(state.planned.items())
    )
    # rows differ in length: a guess, and at first a bad one
    left = (planned - done) * state.tokens / max(done * state.pace, 1)
    return (
        f"{done:,} of {planned:,} rows ({', '.join(parts)}), {state.tokens:,} tokens, "
        f"{state.pace:,} tokens/s, {left:,.0f} s left"
    )


def read(line: str) -> State | None:
    """The state that a line tells; None for any other line."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    parts = [re.fullmatch(_PART, part) for part in found["pools"].split(", ")]
    pools = [part for part in parts if part is not None]
    return State(
        done={part["name"]: _number(part["done"]) for part in pools},
        planned={part["name"]: _number(part["all"]) for part in pools},
        tokens=_number(found["tokens"]),
        pace=_number(found["pace"]),
    )


def _number(text: str) -> int:
    return int(text.replace(",", ""))


@contextmanager
def display(rows: Mapping[str, int]) -> Iterator[Watch]:
    """Show counts as they come.

    Args:
        rows: source rows planned, by adapter.
    """
    started, said = time.monotonic(), 0
    with Shown() as shown:

        def watch(run: Run) -> None:
            nonlocal said
            for load in run.loads[said:]:
                shown.say(load.sentence())
            said = max(said, len(run.loads))
            tokens = sum(tally.tokens for tally in run.tallies.values())
            shown.show(
                State(
                    done={name: tally.rows for name, tally in run.tallies.items()},
                    planned=rows,
                    tokens=tokens,
                    pace=int(tokens / max(time.monotonic() - started, 1e-3)),
                )
            )

        yield watch


class Shown:
    """Where states are shown, one after another."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: _Bars | None = None
        self._held = ExitStack()
        self._last, self._told_end = time.monotonic(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def show(self, state: State) -> None:
        """Show a state: at once on a terminal, elsewhere now and then."""
        if self._console.is_terminal:
            self._draw(state)
            return
        now, done = time.monotonic(), sum(state.done.values())
        finished = done >= sum(state.planned.values())
        waits = now - self._last < _PLAIN_SECONDS and not finished
        if done and not waits and not self._told_end:
            self._last, self._told_end = now, finished
            print(told(state), file=sys.stderr)

    def say(self, line: str) -> None:
        """Print a line, above the bars if there are any."""
        # what it names is no markup
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def take(self, line: str) -> bool:
        """Show the state that a line tells; whether it tells one."""
        state = read(line)
        if state is None:
            return False
        if self._console.is_terminal:
            self._draw(state)
        else:
            print(line, file=sys.stderr, flush=True)
        return True

    def _draw(self, state: State) -> None:
        if self._bars is None:
            self._bars = _Bars(self._console, state.planned)
            self._held.enter_context(self._bars.progress)
        self._bars.draw(state)


class _Bars:
    """One for each adapter, and one for all."""

    def __init__(self, console: Console, rows: Mapping[str, int]) -> None:
        self.progress = Progress(
            TextColumn("{task.description:>15}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} rows"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[tokens]}"),
            console=console,
        )
        self._bars = {
            name: self.progress.add_task(name, total=count, tokens="")
            for name, count in rows.items()
        }
        self._all = self.progress.add_task("all", total=sum(rows.values()), tokens="")

    def draw(self, state: State) -> None:
        for name, done in state.done.items():
            self.progress.update(self._bars[name], completed=done)
        self.progress.update(
            self._all,
            completed=sum(state.done.values()),
            tokens=f"{state.tokens:,} tokens, {state.pace:,}/s",
        )
