"""A local file that appears whole and durable, or not at all.

The bytes go to a temporary file beside the destination, which then gets its name by a rename
(replacing any) or by a hard link (of several at once, one wins). The file is synced before, its
directory after, and so is the way to a new directory: neither a crash nor a full disk leaves half a
file under its name, and a power cut takes none away that we have said is there.

Large files go past the page cache where the file system allows it: they are synced anyway, nobody
here reads them again, and the pages they would take are those of the checkpoint. 184 MB on ext4
took 0.04 instead of 0.24 CPU seconds, and as long on the wall.

A writer that is killed leaves its temporary file behind. Nobody can tell it from one that is being
written to, so whoever clears up may delete either: a writer whose file is gone writes it again.
"""

import errno
import fcntl
import mmap
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_DIRECT = getattr(os, "O_DIRECT", 0)
"""A flag of Linux."""
_BLOCK = 2 << 20
"""Bytes of one direct write: a multiple of every disk's blocks. Smaller files are cached."""
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP)
"""What file systems without direct writes answer: some when asked, some at the first write."""
_ATTEMPTS = 5
"""Times that a file is written whose temporary one is deleted under the writer's hands."""
_lasting: set[Path] = set()
"""Directories whose names this process has had synced."""


def is_temporary(name: str) -> bool:
    """Whether a file of that name was to be renamed, and may be deleted."""
    return name.startswith(".") and name.endswith(".tmp")


def put(path: Path, data: bytes | memoryview) -> None:
    """Write the file, replacing any.

    Raises:
        OSError: the disk refuses; nothing has changed.
    """
    _write(path, data, os.replace)


def create(path: Path, data: bytes) -> None:
    """Write the file if there is none.

    Raises:
        FileExistsError: there is one.
        OSError: the disk refuses; nothing has changed.
    """
    _write(path, data, os.link)


def _write(path: Path, data: bytes | memoryview, name: Callable[[Path, Path], None]) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _written_beside(path, data) as temporary:
                name(temporary, path)
            return
        except FileNotFoundError:
            if attempt == _ATTEMPTS:
                raise


@contextmanager
def _written_beside(path: Path, data: bytes | memoryview) -> Iterator[Path]:
    _make(path.parent)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        # created by open, so that it has the mode the user's umask gives
        with temporary.open("xb") as file:
            file.seek(_write_direct(file.fileno(), memoryview(data)))
            file.write(memoryview(data)[file.tell() :])
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _make(directory: Path) -> None:
    """Make a directory where none is, and see to it that its name lasts."""
    if directory in _lasting and directory.is_dir():
        return
    if directory.parent != directory:
        _make(directory.parent)
    is_new = not directory.is_dir()
    directory.mkdir(exist_ok=True)
    try:
        # also of one that is there: whoever makes it may not have come so far
        _sync(directory.parent)
    except OSError:
        if is_new:
            raise
    _lasting.add(directory)


def _sync(directory: Path) -> None:
    """Have the disk keep the names in a directory."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _write_direct(file: int, data: memoryview) -> int:
    """Write the whole blocks past the page cache, from the start; the bytes that were written."""
    whole = len(data) - len(data) % _BLOCK
    if not _DIRECT or not whole:
        return 0
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    written = 0
    # the disk reads from memory that begins with a page, which bytes do not
    with mmap.mmap(-1, _BLOCK) as block:
        try:
            fcntl.fcntl(file, fcntl.F_SETFL, flags | _DIRECT)
            while written < whole and written % _BLOCK == 0:
                block[:] = data[written : written + _BLOCK]
                written += os.pwrite(file, block, written)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        finally:
            fcntl.fcntl(file, fcntl.F_SETFL, flags)
    return written
