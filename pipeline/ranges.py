"""An object as a file that asks for what is read, range by range.

The stores' clients have files of their own, but those ask for tens of megabytes to give a footer of
some kilobytes, and what fails in the middle of one cannot be asked for again.
"""

import errno
import io
import os
from collections.abc import Callable
from typing import Any

_END = 64 << 10
"""Bytes at the end that are asked for once and kept."""
_NUMBERS = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
"""Of errors that a client raises without one; `OSError` makes the class from the number."""


class Ranges(io.RawIOBase):
    """A file of so many bytes that asks for them when they are read."""

    def __init__(self, size: int, ask: Callable[[int, int], bytes]) -> None:
        """Ask for nothing yet.

        Args:
            size: in bytes.
            ask: gives the bytes from the first number up to the second.
        """
        super().__init__()
        self._size = size
        self._ask = ask
        self._at = 0
        self._end = max(0, size - _END)
        self._tail: bytes | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte; the number of it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """The number of the byte that is read next."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as the buffer takes, or as there are.

        Raises:
            OSError: nobody gives them; always with an `errno`.
        """
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        if self._at >= self._end:
            # where a Parquet file has its footer, which is looked at again and again
            if self._tail is None:
                self._tail = self._given(self._end, self._size)
            found = self._tail[self._at - self._end : stop - self._end]
        else:
            found = self._given(self._at, stop)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _given(self, start: int, stop: int) -> bytes:
        try:
            return self._ask(start, stop)
        except OSError as error:
            if error.errno is not None:
                raise
            raise OSError(_NUMBERS.get(type(error), errno.EIO), str(error)) from error
