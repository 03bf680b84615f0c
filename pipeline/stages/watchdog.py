"""Watchdog: a run that does not move is ended, and says what waits for what.

A scheduler that waits for a CPU which nobody gives back, a store that never answers, a kernel that
never returns: each hangs in silence, for ever. So the run goes on in a thread of its own while this
one looks at it; a thread cannot be ended, but the command can.
"""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

from pipeline.errors import NightjarError, Stalled
from pipeline.stages.told import Progress

Watch = Callable[[Progress], None]
"""Called now and then with how far a run is."""

Answer = TypeVar("Answer")

_WATCH_SECONDS = 0.5
_PULSE_SECONDS = 5.0
_given_up: list[threading.Thread] = []
"""Of runs that have failed while they were at work."""


def watched(
    run: Callable[[], Answer],
    *,
    progress: Callable[[], Progress | None],
    watch: Watch,
    stall: float,
    waiting: Callable[[], Sequence[str]],
) -> Answer:
    """The answer of a run, unless nothing moves for too long.

    Args:
        run: does the work.
        progress: how far it is; None when nobody can tell.
        watch: told of it.
        stall: seconds without a move after which the run is given up.
        waiting: what waits for what, a line each, asked for then.

    Raises:
        Stalled: its notes say what waits for what.
    """
    answer: Future[Answer] = Future()

    def work() -> None:
        try:
            answer.set_result(run())
        except BaseException as error:
            answer.set_exception(error)

    thread = threading.Thread(target=work, name="run", daemon=True)
    thread.start()
    moves, since = -1, time.monotonic()
    try:
        while not wait([answer], timeout=_WATCH_SECONDS).done:
            now = progress()
            if now is not None:
                if now.moves != moves:
                    moves, since = now.moves, time.monotonic()
                watch(now)
            if time.monotonic() - since > stall:
                raise _stalled(stall, thread, waiting())
    except NightjarError:
        _given_up.append(thread)
        raise
    return answer.result()


def still_at_work() -> bool:
    """Whether a run that was given up goes on in a thread of this process."""
    return any(thread.is_alive() for thread in _given_up)


@contextmanager
def pulsing(
    count: Callable[[], int],
    tell: Callable[[], object],
    lives: Callable[[], object] | None = None,
) -> Iterator[None]:
    """Tell while a count grows: a large unit takes long on a slow device, and that is no stall.

    Args:
        count: grows with what is done.
        tell: called when it has.
        lives: called each time, whether it has or not.
    """
    done = threading.Event()

    def look() -> None:
        last = 0
        while not done.wait(_PULSE_SECONDS):
            if count() != last:
                last = count()
                tell()
            if lives is not None:
                lives()

    threading.Thread(target=look, name="pulse", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _stalled(stall: float, thread: threading.Thread, waiting: Sequence[str]) -> Stalled:
    error = Stalled(
        f"limits.stall: nothing has moved for {stall:g} s, so the run was given up; nothing was "
        "committed; the same command goes on from here"
    )
    for line in waiting:
        error.add_note(f"  {line}")
    frame = sys._current_frames().get(thread.ident or 0)
    stack = traceback.format_stack(frame)[-6:] if frame else []
    error.add_note("  the run itself is here:\n" + "".join(stack).rstrip())
    return error
