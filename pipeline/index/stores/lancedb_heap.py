"""The C library's heap under LanceDB's writer, which asks for tens of megabytes for each page of
vectors and frees them when the page is written.

glibc gives what is freed at the end of a heap back to the kernel, which clears it anew, 4 kB at a
time, for the next page. With several appends at once, of threads that have a heap each, that took
a quarter of the time of all appends.
"""

import ctypes
from functools import cache

# of malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30
"""Bytes at the end of a heap that are not given back."""
_LARGEST = 32 << 20
"""Bytes up to which memory is of a heap: the most that glibc takes, and what it comes to by itself
when no threshold is set."""


@cache
def keep_freed_memory() -> None:
    """Have this process keep what it has freed, where its C library can; the first call does."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
