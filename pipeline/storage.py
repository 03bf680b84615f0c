"""Object storage by URL, through fsspec; a local directory is one case of it.

Two rules make the rest of the house safe. Whole objects only: bytes are built in memory and put
once, because a stream that is closed by an exception publishes half a file. And one primitive,
put-if-absent, that must really be atomic: fsspec's own `create` on local files checks and then
writes, and lets several writers win, so `file://` creates by hard link here.
"""

import hashlib
import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow.fs as pafs
from filelock import FileLock
from fsspec import AbstractFileSystem
from fsspec.utils import get_protocol

from pipeline import durable
from pipeline.errors import NightjarError, OutputError, SourceError

CREATES_ATOMICALLY = frozenset({"file", "s3"})
"""Protocols whose put-if-absent has one winner: a hard link, and If-None-Match on S3."""

_GLOB = frozenset("*?[")
_BOOKKEEPING = ("_SUCCESS", "_metadata", "_common_metadata", "_snapshot.json")


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One object, as listed."""

    uri: str
    """Its whole URL; an absolute path when local."""
    size: int
    """In bytes."""
    etag: str
    """Changes whenever the content does: the store's ETag, or a local file's time of change."""


@dataclass(frozen=True, kw_only=True)
class Location:
    """A path on a file system."""

    filesystem: AbstractFileSystem
    """The fsspec file system."""
    path: str
    """The path in its own spelling."""

    @property
    def protocol(self) -> str:
        """`file`, `s3`, ..."""
        protocol = self.filesystem.protocol
        name = protocol if isinstance(protocol, str) else protocol[0]
        return "file" if name in ("local", "file") else name


def locate(uri: str) -> Location:
    """The file system and path of a URL; a bare path is local.

    Raises:
        SourceError: no installed package knows the protocol.
    """
    protocol = get_protocol(uri)
    try:
        filesystem = _filesystem(protocol)
    except (ImportError, ValueError) as error:
        raise SourceError(f"{uri!r}: cannot open {protocol}:// locations: {error}") from error
    path = filesystem._strip_protocol(os.path.expanduser(uri) if protocol == "file" else uri)
    return Location(filesystem=filesystem, path=cast(str, path))


def absolute(uri: str) -> str:
    """The URL as a worker with another working directory must spell it."""
    at = locate(uri)
    return at.path if at.protocol == "file" else uri


@cache
def _filesystem(protocol: str) -> AbstractFileSystem:
    # listings are never cached: a listing decides which snapshot is the newest
    return cast(AbstractFileSystem, fsspec.filesystem(protocol, use_listings_cache=False))


def list_objects(pattern: str, suffixes: tuple[str, ...] = ()) -> list[StoredObject]:
    """The objects a URL names, sorted: a glob, one object, or a directory with all below it.

    Args:
        pattern: the URL.
        suffixes: for a directory, only names that end in one of these, in any case.

    Raises:
        SourceError: the store cannot be read.
    """
    at = locate(pattern)
    try:
        with _store_errors(pattern):
            if _GLOB & set(at.path):
                found = at.filesystem.glob(at.path, detail=True)
            else:
                found = at.filesystem.find(at.path, detail=True)
                if suffixes and set(found) != {at.path}:
                    found = {p: i for p, i in found.items() if p.lower().endswith(suffixes)}
            base = locate(base_directory(pattern)).path
    except FileNotFoundError:
        found, base = {}, ""
    except OSError as error:
        raise SourceError(f"cannot list {pattern!r}: {error}") from error
    return [
        _stored(at, path, info)
        for path, info in sorted(cast("dict[str, dict[str, Any]]", found).items())
        # an object that is named as it is was meant
        if info["type"] == "file"
        and (path == at.path or not _is_bookkeeping(path.removeprefix(base)))
    ]


def open_object(uri: str) -> BinaryIO:
    """Open an object for random reads."""
    at = locate(uri)
    return cast(BinaryIO, at.filesystem.open(at.path, "rb"))


def read_object(uri: str, start: int | None = None, stop: int | None = None) -> bytes:
    """The bytes of an object, or of a range of it."""
    at = locate(uri)
    return cast(bytes, at.filesystem.cat_file(at.path, start=start, end=stop))


@cache
def base_directory(pattern: str) -> str:
    """The directory before the first glob, with which relative paths in the data begin."""
    at = locate(pattern)
    parts = at.path.split("/")
    first = next((i for i, part in enumerate(parts) if _GLOB & set(part)), None)
    if first is not None:
        return cast(str, at.filesystem.unstrip_protocol("/".join(parts[:first])))
    path = at.path if at.filesystem.isdir(at.path) else posixpath.dirname(at.path)
    return cast(str, at.filesystem.unstrip_protocol(path))


def local_copy(uri: str, cache: Path) -> Path:
    """A folder of objects as a local directory: itself when it is one, else a copy, made once.

    Args:
        uri: of the folder.
        cache: the local directory that holds the copies, one for each content.

    Raises:
        SourceError: the folder is empty, or cannot be read.
    """
    at = locate(uri)
    if at.protocol == "file":
        return Path(at.path)
    objects = list_objects(uri)
    if not objects:
        raise SourceError(f"no object below {uri!r}")
    listing = "\n".join(f"{o.uri} {o.size} {o.etag}" for o in objects)
    target = cache / hashlib.sha256(listing.encode()).hexdigest()[:32]
    cache.mkdir(parents=True, exist_ok=True)
    # of several workers on one host one copies and the others wait for it; a lock of a process that
    # dies is free again
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                at.filesystem.get(at.path, f"{temporary}/copy", recursive=True)
                os.rename(f"{temporary}/copy", target)
    return target


class Folder:
    """A writable folder by URL: whole objects, put or created."""

    def __init__(self, uri: str) -> None:
        self._at = locate(uri)
        self.uri = uri.rstrip("/")

    @property
    def filesystem(self) -> AbstractFileSystem:
        """The fsspec file system, for readers that take one."""
        return self._at.filesystem

    def arrow_filesystem(self) -> pafs.FileSystem:
        """The same for Arrow's own readers: native for local files, which needs no Python lock."""
        if self._at.protocol == "file":
            return pafs.LocalFileSystem()
        return pafs.PyFileSystem(pafs.FSSpecHandler(self.filesystem))

    def path(self, name: str) -> str:
        """The path of an object in it, in the file system's spelling."""
        return f"{self._at.path}/{name}"

    def get(self, name: str) -> bytes:
        """The bytes of an object.

        Raises:
            FileNotFoundError: it is not there.
        """
        return cast(bytes, self.filesystem.cat_file(self.path(name)))

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Put a whole object, replacing any; a local one appears at once, under its name."""
        with _store_errors(f"{self.uri}/{name}"):
            if self._at.protocol == "file":
                durable.put(Path(self.path(name)), data)
            else:
                # the clients of the stores take nothing but bytes
                self.filesystem.pipe_file(self.path(name), bytes(data))

    def create(self, name: str, data: bytes) -> None:
        """Put a whole object if none is there; of several at once, one wins.

        Raises:
            FileExistsError: one is there. On a network file system it may be our own, when the
                reply to a first try was lost: compare the bytes.
            OutputError: the store has no put-if-absent.
        """
        self.demand_create()
        with _store_errors(f"{self.uri}/{name}"):
            if self._at.protocol == "file":
                durable.create(Path(self.path(name)), data)
            else:
                self.filesystem.pipe_file(self.path(name), data, mode="create")

    def demand_create(self) -> None:
        """Refuse a store in which several writers could all win.

        Raises:
            OutputError: names those that will do.
        """
        if self._at.protocol not in CREATES_ATOMICALLY:
            raise OutputError(
                f"output.uri: {self.uri!r}: {self._at.protocol}:// has no put-if-absent here; use "
                f"one of {', '.join(sorted(CREATES_ATOMICALLY))}"
            )
        if self._at.protocol == "file":
            path = Path(self._at.path)
            there = next(p for p in (path, *path.parents) if p.exists())
            if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
                raise OutputError(
                    f"output.uri: {self.uri!r}: {there} is not a directory that can be written to"
                )

    def names(self, prefix: str) -> list[str]:
        """Names of the objects directly below a sub-folder, sorted; none when it is not there."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Size in bytes by name of the objects directly below a sub-folder."""
        with _store_errors(f"{self.uri}/{prefix}"):
            try:
                found = self.filesystem.ls(self.path(prefix), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        named = {posixpath.basename(info["name"]): info for info in found}
        return {
            name: int(info["size"])
            for name, info in named.items()
            if info["type"] == "file" and not name.startswith(".")
        }


@contextmanager
def _store_errors(what: str) -> Iterator[None]:
    """Make an OSError of whatever a store's client raises: not all of them do."""
    try:
        yield
    except (OSError, NightjarError):
        raise
    except Exception as error:
        raise OSError(f"{what}: {type(error).__name__}: {error}") from error


def _stored(at: Location, path: str, info: dict[str, Any]) -> StoredObject:
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("mtime")
    uri = path if at.protocol == "file" else cast(str, at.filesystem.unstrip_protocol(path))
    return StoredObject(uri=uri, size=int(info["size"]), etag=str(etag).strip('"'))


def _is_bookkeeping(below: str) -> bool:
    """Whether a path below a source is of a tool and not of the corpus."""
    parts = below.split("/")
    return parts[-1] in _BOOKKEEPING or any(p.startswith(".") or p == "_temporary" for p in parts)
