"""Bounds: how much of a process's CPU and memory preparing one item may take.

The kernel holds the bounds, so they also hold inside a decoder's C code, and cost some microseconds
an item: soft limits are lowered before it and restored after it. An allocation beyond the memory
fails, as a MemoryError as a rule. Too much CPU kills the process, which is why the bound is set
only where a process may die; the row is then found as any other that kills its worker. Both are of
the whole process: one thread at a time may be inside.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATM = Path("/proc/self/statm")
_DATA = 5
"""Its field with the pages of data and stack."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one item may take; None for as much as it likes."""

    cpu_seconds: int | None = None
    """Whole seconds of CPU, all threads together."""
    memory: int | None = None
    """Bytes beyond what the process has when it takes up the item."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the process to the bounds.

        Raises:
            MemoryError: what is done inside needs more memory.
        """
        with ExitStack() as limits:
            if self.cpu_seconds is not None:
                spent = int(time.process_time()) + 1
                limits.enter_context(_lowered(resource.RLIMIT_CPU, spent + self.cpu_seconds))
            if self.memory is not None:
                limits.enter_context(_lowered(resource.RLIMIT_DATA, _data_bytes() + self.memory))
            yield


@contextmanager
def _lowered(limit: int, most: int) -> Iterator[None]:
    """A soft limit at most so high; the hard one stays, so that it can be raised again."""
    soft, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(limit, (soft, hard))


def _data_bytes() -> int:
    return int(_STATM.read_text().split()[_DATA]) * resource.getpagesize()
