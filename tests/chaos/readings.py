"""What a process holds, read between two runs.

Flat is decided without a clock and without a fit: after ten runs to warm up, the least of the last
ten readings may not exceed the greatest of the first ten by more than an allowance. Noise and a
single step pass; what grows with each run does not, since many runs lie between the two.
"""

import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil

import psutil
import pyarrow as pa

_WARM_UP, _WINDOW = 10, 10
_PER_RUN = {
    "files": 0,
    "threads": 0,
    "arrow": 0,
    # the reading itself, and less than one more
    "objects": 2 - 1e-3,
    # the reading itself, whose numbers take some 360 bytes
    "python": 400,
    # an allocator takes what it wants, the more so as every allocation is noted
    "resident": 800_000,
}
"""How much more may be held for each run that lies between what is compared."""
_PER_LOAD = 12_000
"""Bytes of Python for each that loads the model: safetensors 0.8 keeps two small integers of each
tensor that it has read."""
_POOLED = pa.io_thread_count() + pa.cpu_count()
"""Threads of Arrow's two pools, which start one whenever more work comes at once than ever before,
in the hundredth run too, and never more than these."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a process holds between two runs."""

    resident: int
    """Bytes of it in memory, without those that count the others."""
    python: int
    """Bytes that Python has allocated since the test began."""
    arrow: int
    """Bytes that Arrow has allocated."""
    objects: int
    """Objects that the collector knows."""
    files: int
    """Open file descriptors."""
    threads: int
    """Threads."""

    @classmethod
    def take(cls) -> "Reading":
        """Read them all."""
        gc.collect()
        process = psutil.Process()
        return cls(
            resident=process.memory_info().rss - tracemalloc.get_tracemalloc_memory(),
            python=tracemalloc.get_traced_memory()[0],
            arrow=pa.total_allocated_bytes(),
            objects=len(gc.get_objects()),
            files=process.num_fds(),
            threads=process.num_threads(),
        )


def demand_flat(readings: Sequence[Reading], loading: float) -> None:
    """Fail when the last readings are above the first.

    Args:
        readings: one for each run.
        loading: the share of runs that load the model.
    """
    columns = [asdict(reading) for reading in readings]
    between = len(readings) - _WARM_UP - 2 * _WINDOW + 1
    # a load counts whole: it may be the first or the last run that lies between
    once = {"python": ceil(between * loading) * _PER_LOAD, "threads": _POOLED}
    for name, allowance in _PER_RUN.items():
        found = [column[name] for column in columns]
        first, last = found[_WARM_UP : _WARM_UP + _WINDOW], found[-_WINDOW:]
        allowed = between * allowance + once.get(name, 0)
        assert min(last) <= max(first) + allowed, f"{name} grows: {found}"
