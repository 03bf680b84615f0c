"""A local file that appears whole and durable, or not at all.

The bytes go to a temporary file beside the destination, which then gets its name by a rename
(replacing any) or by a hard link (of several at once, one wins). File and directory are synced, so
neither a crash nor a full disk leaves half a file under its name.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def put(path: Path, data: bytes | memoryview) -> None:
    """Write the file, replacing any.

    Raises:
        OSError: the disk refuses; nothing has changed.
    """
    with _written_beside(path, data) as temporary:
        os.replace(temporary, path)


def create(path: Path, data: bytes) -> None:
    """Write the file if there is none.

    Raises:
        FileExistsError: there is one.
        OSError: the disk refuses; nothing has changed.
    """
    with _written_beside(path, data) as temporary:
        os.link(temporary, path)


@contextmanager
def _written_beside(path: Path, data: bytes | memoryview) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        # created by open, so that it has the mode the user's umask gives
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
