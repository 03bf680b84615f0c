"""Interrupted: a command that is asked to end leaves its account first.

Kubernetes, Ray's Jobs API and cron's `timeout` ask by SIGTERM, of which Python would die at once;
here it is what Ctrl-C is. What was recorded counts, and what was in flight is dropped whole.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ending_softly() -> Iterator[None]:
    """Within it SIGTERM raises KeyboardInterrupt, once; the second one kills.

    In a thread other than the first there are no signals, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt
