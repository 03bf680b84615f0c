"""An object store in a directory, that counts what it is asked.

It takes the place of the client of `s3://`, so that the project talks to it as to S3: ranges of
objects, whole puts, put-if-absent by a condition, listings of at most 1,000 keys a request. It
answers at once and never fails; what a network adds is for whoever multiplies by the counts. The
bucket is the first part of an absolute path: `s3://tmp/here` is `/tmp/here`.
"""

import os
import threading
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

KEYS_PER_LIST = 1000
"""Of one LIST of S3."""

_lock = threading.Lock()
_asked: Counter[str] = Counter()


def use_directory_store() -> None:
    """Have `s3://` lead here, in this process from now on."""
    if fsspec.registry.get("s3") is not DirectoryStore:
        fsspec.register_implementation("s3", DirectoryStore, clobber=True)


def asked() -> Counter[str]:
    """Requests of this process so far by kind, and bytes sent and received."""
    with _lock:
        return Counter(_asked)


def url(path: Path) -> str:
    """Of a path, in this store."""
    return f"s3:/{path.resolve()}"


def _count(kind: str, number: int = 1, **sizes: int) -> None:
    with _lock:
        _asked[kind] += number
        for name, size in sizes.items():
            _asked[name] += size


class DirectoryStore(AbstractFileSystem):  # type: ignore[misc]
    """Files below directories as objects below buckets."""

    protocol = "s3"
    cachable = True

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What lies directly below a prefix, or the object itself."""
        path = self._strip_protocol(path)
        try:
            with os.scandir(f"/{path}") as entries:
                found = [_described(f"{path}/{entry.name}", entry) for entry in entries]
        except NotADirectoryError:
            found = [self.info(path)]
        except FileNotFoundError:
            _count("LIST")
            raise
        _count("LIST", max(1, -(-len(found) // KEYS_PER_LIST)))
        return found if detail else [info["name"] for info in found]

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Of one object."""
        _count("HEAD")
        path = self._strip_protocol(path)
        return _described(path, Path(f"/{path}"))

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """An object, or a range of it."""
        with open(f"/{self._strip_protocol(path)}", "rb") as file:
            file.seek(start or 0)
            data = file.read(-1 if end is None else end - (start or 0))
        _count("GET", received=len(data))
        return data

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Put an object; with the mode `create` only where none is."""
        at = f"/{self._strip_protocol(path)}"
        os.makedirs(os.path.dirname(at), exist_ok=True)
        _count("PUT", sent=len(value))
        aside = f"{os.path.dirname(at)}/.{uuid.uuid4().hex}"
        with open(aside, "wb") as file:
            file.write(value)
        if mode != "create":
            os.replace(aside, at)
            return
        try:
            os.link(aside, at)
        finally:
            os.unlink(aside)

    def rm_file(self, path: str) -> None:
        """Delete an object."""
        _count("DELETE")
        os.unlink(f"/{self._strip_protocol(path)}")


def _described(path: str, at: "os.DirEntry[str] | Path") -> dict[str, Any]:
    stat = at.stat()
    kind = "directory" if at.is_dir() else "file"
    etag = f"{stat.st_mtime_ns:x}-{stat.st_size:x}"
    return {
        "name": path,
        "type": kind,
        "size": stat.st_size,
        "ETag": etag,
        "LastModified": stat.st_mtime,
    }
