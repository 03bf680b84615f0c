"""The C library's heap under LanceDB's writer, which asks for tens of megabytes for each page of
vectors and frees them when the page is written.

glibc gives what is freed at the end of a heap back to the kernel, which clears it anew, 4 kB at a
time, for the next page. With several appends at once, of threads that have a heap each, that took
a quarter of the time of all appends. Where the C library has no such settings, nothing is done.
"""

import ctypes

# of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30
"""Bytes at the end of a heap that are not given back."""
_LARGEST = 32 << 20
"""Bytes up to which memory is of a heap: the most that glibc takes, and what it comes to by itself
when no threshold is set, with twice as much that is kept."""


def keep_freed_memory() -> None:
    """Have this process keep what it has freed."""
    _set(kept=_KEPT)


def give_freed_memory_back() -> None:
    """Have it keep no more than any other, from now on."""
    _set(kept=2 * _LARGEST)
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _set(*, kept: int) -> None:
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_TRIM_THRESHOLD, kept)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
