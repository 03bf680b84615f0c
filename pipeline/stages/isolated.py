"""Isolated: a stage in a process of its own, so that rows that kill their process can be found.

A decoder that crashes or a kernel that is killed takes its worker with it, and Ray would try the
unit again for ever. After two deaths it is cut in halves here, again and again, until the rows that
kill are alone; they are set aside and all others are kept. A process that survives a half goes on
with the next one, so what is loaded is loaded anew only after a death.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Self

import pyarrow as pa

from pipeline.errors import DeviceLost, NightjarError, Reason
from pipeline.stages.bisect import Stage, bisect
from pipeline.stages.board import tellable
from pipeline.stages.recipe import Recipe


class Died(Exception):
    """The process that did the work is gone."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the process is to do; it is told once."""

    recipe: Recipe
    """Of the job."""
    adapter: str | None = None
    """Whose items are to be embedded; None to prepare rows."""
    device: str = "auto"
    """Where to embed."""

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return "prepare" if self.adapter is None else "embed"

    def start(self) -> Stage:
        """The stage, loaded."""
        if self.adapter is None:
            return self.recipe.prepare()
        adapter, embed = self.adapter, self.recipe.embed(self.adapter, self.device)
        return lambda items: embed(items, adapter)


class Process:
    """A stage in a process of its own. A context manager, and a call for each table."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table that the stage makes of this one.

        Raises:
            Died: the process did not survive it.
            NightjarError: what the stage raised.
        """
        process = self._process or self._begin()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, table)
            answer = _receive(process.stdout)
        except (OSError, EOFError):
            self._end()
            raise Died(f"exit code {process.returncode}") from None
        if isinstance(answer, NightjarError):
            raise answer
        assert isinstance(answer, pa.Table)
        return answer

    def _begin(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.stages.isolated"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        _send(self._process.stdin, self._work)
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def survivors(work: Work, table: pa.Table, reason: Reason, moved: Callable[[], object]) -> pa.Table:
    """What a stage makes of a table, in processes that may die; the rows that kill set aside.

    Args:
        work: the stage.
        table: with the columns reason, stage and message.
        reason: of the rows that kill.
        moved: called after every half.
    """

    def blame(error: Exception) -> tuple[Reason, str]:
        if not isinstance(error, Died):
            raise error
        return reason, f"the process that was to {work.stage} it died of it, alone too ({error})"

    with Process(work) as process:

        def call(part: pa.Table) -> pa.Table:
            try:
                return process(part)
            finally:
                moved()

        return bisect(call, table, work.stage, blame)


def _send(stream: IO[bytes], value: object) -> None:
    pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def _receive(stream: IO[bytes]) -> object:
    """What the other end of a pipe sent; both ends are ours, so it is safe to unpickle."""
    return pickle.load(stream)


def _serve() -> None:
    """The process: one stage, one answer for each table, until its input ends."""
    answers = sys.stdout.buffer
    # whatever a library prints must not be taken for an answer
    sys.stdout = sys.stderr
    work = _receive(sys.stdin.buffer)
    assert isinstance(work, Work)
    stage: Stage | NightjarError
    try:
        stage = work.start()
    except Exception as error:
        stage = tellable(error)
    while True:
        try:
            table = _receive(sys.stdin.buffer)
        except EOFError:
            return
        _send(answers, _answer(stage, table))


def _answer(stage: Stage | NightjarError, table: object) -> pa.Table | NightjarError:
    if isinstance(stage, NightjarError):
        return stage
    assert isinstance(table, pa.Table)
    try:
        return stage(table)
    except DeviceLost:
        # of this row or not, nothing more can be done here: a new process goes on
        os._exit(1)
    except Exception as error:
        return tellable(error)


if __name__ == "__main__":
    # by its own name: as `__main__` its classes would be others than those that are sent
    from pipeline.stages import isolated

    isolated._serve()
