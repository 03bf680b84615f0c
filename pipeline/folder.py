"""A folder that the project writes: whole objects, put once, and one that is created once.

An object's bytes are built in memory and put in one call, because a stream that is closed by an
exception publishes half a file. The one primitive that must be atomic is put-if-absent: fsspec's
own on local files checks and then writes, and lets several writers win, so there it is a hard link.
It is tried before anything depends on it: some stores accept the condition and ignore it, and some
file systems (exFAT, network and FUSE ones) have no hard links.
"""

import os
import posixpath
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow.fs as pafs
from fsspec import AbstractFileSystem

from pipeline import durable
from pipeline.errors import OutputError
from pipeline.patience import PATIENCE, patiently
from pipeline.storage import locate

CREATES_ATOMICALLY = frozenset({"file", "s3", "gs", "abfs"})
"""Protocols whose put-if-absent has one winner: a hard link, If-None-Match on S3 and Azure, and
ifGenerationMatch on Google's."""

_PART_MARK = b"\n--==0=="
"""What gcsfs puts between the parts of an upload, whatever is in them."""

PROBE = "probe"
"""The object with which a store shows that it keeps what was there first; never deleted, since
whoever embeds needs no right to delete."""

_MODIFIED = {"file": "mtime", "s3": "LastModified", "gs": "mtime", "abfs": "last_modified"}
"""Under which key a listing of each protocol has the time of the last change."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What a listing tells of an object."""

    size: int
    """In bytes."""
    modified: float
    """When it was written by the store's own clock, in seconds since 1970; stores round it."""


class Folder:
    """A writable folder by URL: whole objects, put or created."""

    def __init__(self, uri: str, patience: float = PATIENCE) -> None:
        """Open a folder, which need not be there.

        Args:
            uri: a path, or an object-store URL.
            patience: seconds for which calls of an object store are tried again.
        """
        self._at = locate(uri)
        self.is_local = self._at.protocol == "file"
        self._patience = min(patience, self._at.patience)
        self.uri = uri.rstrip("/")

    @property
    def filesystem(self) -> AbstractFileSystem:
        """The fsspec file system, for readers that take one."""
        return self._at.filesystem

    def arrow_filesystem(self) -> pafs.FileSystem:
        """The same for Arrow's own readers: native for local files, which needs no Python lock."""
        if self.is_local:
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
        return self._call(name, lambda: cast(bytes, self.filesystem.cat_file(self.path(name))))

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Put a whole object, replacing any; a local one appears at once, under its name."""
        if self.is_local:
            self._call(name, lambda: durable.put(Path(self.path(name)), data))
        else:
            # the clients of the stores take nothing but bytes
            self._upload(name, bytes(data), "overwrite")

    def create(self, name: str, data: bytes) -> None:
        """Put a whole object if none is there; of several at once, one wins.

        Raises:
            OSError: one is there, which stores tell in different ways; or the store failed. Either
                way it may be our own, when the reply to a first try was lost: see `settle`.
            OutputError: the store has no put-if-absent.
        """
        self._demand_atomic_protocol()
        if self.is_local:
            self._call(name, lambda: durable.create(Path(self.path(name)), data))
        else:
            self._upload(name, data, "create")

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no fault."""
        with suppress(FileNotFoundError):
            self._call(name, lambda: self.filesystem.rm_file(self.path(name)))

    def demand_create(self) -> None:
        """Refuse a store in which several writers could all win, and one that cannot be written to.

        Raises:
            OutputError: says what is wrong and what will do.
        """
        self._demand_atomic_protocol()
        try:
            self._try_create()
        except OSError as error:
            links = ", or its file system has no hard links" if self.is_local else ""
            raise OutputError(
                f"output.uri: {self.uri!r} cannot be written to{links}: {error}"
            ) from error

    def _try_create(self) -> None:
        if not self.is_local:
            self._demand_one_winner(self, PROBE)
            return
        # where it would be made: a run that is refused later leaves no folder behind
        above, name = Folder(str(self._demand_directory())), f".{uuid.uuid4().hex}.{PROBE}"
        try:
            self._demand_one_winner(above, name)
        finally:
            above.delete(name)

    def _demand_one_winner(self, folder: "Folder", name: str) -> None:
        """Create an object in a folder twice; the first must win."""
        first, second = uuid.uuid4().hex.encode(), uuid.uuid4().hex.encode()
        first = settle(folder, name, first)
        with suppress(OSError):
            folder.create(name, second)
        if folder.get(name) != first:
            raise OutputError(
                f"output.uri: {self.uri!r}: this store ignores If-None-Match and overwrites what "
                "is there, so runs could lose each other's commits; use a store that honours it "
                "(AWS S3, MinIO, Ceph RGW from 16), gs://, abfs://, or a local directory"
            )

    def names(self, prefix: str) -> list[str]:
        """Names of the objects directly below a sub-folder, sorted; none when it is not there."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Size in bytes by name of the objects directly below a sub-folder."""
        return {name: found.size for name, found in self.listed(prefix).items()}

    def listed(self, prefix: str) -> dict[str, Listed]:
        """What a listing tells of the objects directly below a sub-folder, by name."""
        key = _MODIFIED.get(self._at.protocol, "")
        return {
            name: Listed(size=int(info["size"]), modified=_seconds(info.get(key, 0.0)))
            for name, info in self._list(prefix).items()
            if info["type"] == "file"
        }

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below a sub-folder, sorted."""
        found = self._list(prefix).items()
        return sorted(name for name, info in found if info["type"] == "directory")

    def temporaries(self, prefix: str) -> list[str]:
        """Names of what writers left directly below a local sub-folder, or still write to."""
        return sorted(filter(durable.is_temporary, self._named(prefix))) if self.is_local else []

    def _list(self, prefix: str) -> dict[str, dict[str, Any]]:
        named = self._named(prefix).items()
        return {name: info for name, info in named if not name.startswith(".")}

    def _named(self, prefix: str) -> dict[str, dict[str, Any]]:
        try:
            found = self._call(prefix, lambda: self.filesystem.ls(self.path(prefix), detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {posixpath.basename(info["name"].rstrip("/")): info for info in found}

    def _call(self, name: str, call: Callable[[], Answer]) -> Answer:
        return patiently(call, f"{self.uri}/{name}", self._patience)

    def _upload(self, name: str, data: bytes, mode: str) -> None:
        # sent as a whole what would be cut short as one of the parts of an upload
        whole = self._at.protocol == "gs" and _PART_MARK in data
        more = {"chunksize": len(data)} if whole else {}
        at = self.path(name)
        self._call(name, lambda: self.filesystem.pipe_file(at, data, mode=mode, **more))

    def _demand_atomic_protocol(self) -> None:
        if self._at.protocol not in CREATES_ATOMICALLY:
            raise OutputError(
                f"output.uri: {self.uri!r}: {self._at.protocol}:// has no put-if-absent here; use "
                f"one of {', '.join(sorted(CREATES_ATOMICALLY))}"
            )

    def _demand_directory(self) -> Path:
        """The folder, or the nearest above it that is there."""
        path = Path(self._at.path)
        there = next(p for p in (path, *path.parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise OutputError(
                f"output.uri: {self.uri!r}: {there} is not a directory that can be written to"
            )
        return there


def _seconds(time: float | datetime) -> float:
    return time.timestamp() if isinstance(time, datetime) else time


def settle(folder: Folder, name: str, data: bytes) -> bytes:
    """Create an object unless one is there; the bytes that are there then.

    The whole protocol rests on this: of several who settle a name the first wins, and everybody is
    told its bytes. An error says nothing about what the store has done, since a reply may be lost
    after the write: only what is there tells.

    Raises:
        OSError: the store failed, and nothing is there that can be read.
    """
    try:
        folder.create(name, data)
    except OSError as error:
        try:
            return folder.get(name)
        except OSError as unread:
            # that something is there is no answer to what is there
            raise (unread if isinstance(error, FileExistsError) else error) from None
    return data
