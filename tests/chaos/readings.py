"""What a process holds, read between two runs.

Flat is decided without a clock and without a fit: after ten runs to warm up, the least of the last
ten readings may not exceed the greatest of the first ten by more than an allowance. Noise and a
single step pass; what grows with each run does not, since many runs lie between the two.
"""

import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import psutil
import pyarrow as pa

_WARM_UP, _WINDOW = 10, 10
_ALLOWANCE = {
    "files": 0,
    "threads": 0,
    "arrow": 0,
    # the readings themselves, and less than one more a run
    "objects": 41,
    # safetensors 0.8 keeps two small integers of each tensor that it has read
    "python": 96 << 10,
    # an allocator takes what it wants, the more so as every allocation is noted
    "resident": 16 << 20,
}


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


def demand_flat(readings: Sequence[Reading]) -> None:
    """Fail when the last readings are above the first."""
    columns = [asdict(reading) for reading in readings]
    for name, allowance in _ALLOWANCE.items():
        found = [column[name] for column in columns]
        first, last = found[_WARM_UP : _WARM_UP + _WINDOW], found[-_WINDOW:]
        assert min(last) <= max(first) + allowance, f"{name} grows: {found}"
