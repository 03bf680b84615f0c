"""A disk that forgets: what of a directory a power cut leaves, and what it may leave.

The calls are real and so is the file system; only what has been synced is written down beside it. A
power cut surely leaves what was synced: the bytes of a file at its last fsync, and the names in a
directory at that directory's last fsync. It may leave any name that is there by then, synced or
not, with whatever bytes.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Look = Callable[[str, Path | None], None]
"""Called before and after every call below the root, with its name and, before it gives a file its
name, that name; afterwards, and for other calls, with None."""

_NAMING = ("link", "replace", "rename")
_REMOVING = ("unlink", "remove")
_CALLS = (*_NAMING, *_REMOVING, "fsync", "mkdir", "pwrite")


class Disk:
    """Below a root, which is there to stay, what has been synced."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}

    def left(self) -> dict[str, bytes]:
        """What a power cut now leaves in any case, by path below the root."""
        return dict(self._left(self._root.stat().st_ino, ""))

    def unsynced(self) -> list[str]:
        """Files that have their name and not yet their bytes: a power cut may leave them broken."""
        files = (path for path in self._root.rglob("*") if path.is_file())
        return [
            str(path.relative_to(self._root))
            for path in files
            if not path.name.startswith(".")
            and self._bytes.get(path.stat().st_ino) != path.read_bytes()
        ]

    def _left(self, directory: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        for name, number in self._names.get(directory, {}).items():
            if number in self._bytes:
                yield f"{prefix}{name}", self._bytes[number]
            yield from self._left(number, f"{prefix}{name}/")

    @contextmanager
    def watched(self, look: Look = lambda call, name: None) -> Iterator[None]:
        """Write down what is synced, and look around before and after every call."""
        with pytest.MonkeyPatch.context() as patch:
            for call in _CALLS:
                patch.setattr(os, call, self._wrapped(call, getattr(os, call), look))
            yield

    def _wrapped(self, call: str, original: Callable[..., Any], look: Look) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **more: Any) -> Any:
            at = _path_of(arguments[0])
            if not at.is_relative_to(self._root):
                return original(*arguments, **more)
            look(call, Path(arguments[1]) if call in _NAMING else None)
            there = at.stat() if call in _REMOVING and at.exists() else None
            done = original(*arguments, **more)
            if there is not None and there.st_nlink == 1:
                # its number may be that of another file soon
                self._bytes.pop(there.st_ino, None)
            if call == "fsync":
                self._synced(arguments[0], at)
            look(call, None)
            return done

        return wrapped

    def _synced(self, descriptor: int, at: Path) -> None:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = {entry.name: entry.inode() for entry in os.scandir(at)}
        else:
            # by another descriptor: what Python holds back is not on the disk
            self._bytes[found.st_ino] = at.read_bytes()


def _path_of(named: int | str | os.PathLike[str]) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{named}") if isinstance(named, int) else named)
