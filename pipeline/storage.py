"""Object storage by URL, through fsspec; a local directory is one case of it."""

import io
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, BinaryIO, cast

import fsspec
from fsspec import AbstractFileSystem
from fsspec.utils import get_protocol

from pipeline.errors import SourceChanged, SourceError
from pipeline.links import demand_within
from pipeline.patience import FIRST_PATIENCE, PATIENCE, patiently
from pipeline.ranges import Ranges
from pipeline.stores import StoreSpec

_GLOB = frozenset("*?[")
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "abfs": "azure", "abfss": "azure", "az": "azure"}
"""By protocol, the extra of this package that brings its client."""
_READ_AHEAD = 128 << 10
"""More than the header of a tar member and the footer of most Parquet files."""
_BOOKKEEPING = ("_SUCCESS", "_metadata", "_common_metadata", "_snapshot.json")
"""What tools leave beside the files of a corpus, by name."""

_stores: tuple[StoreSpec, ...] = ()
"""How stores are reached in this process: like the environment, of which it takes the place."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One object, as listed."""

    uri: str
    """Its whole URL; an absolute path when local."""
    size: int
    """In bytes."""
    etag: str
    """The store's ETag; for a local file the time at which it was last written to. That time can be
    set, and whoever keeps it and the size while replacing the content is not noticed; inodes would
    tell, but a disk that several nodes share may number them differently on each."""


@dataclass(frozen=True, kw_only=True)
class Location:
    """A path on a file system."""

    filesystem: AbstractFileSystem
    """The fsspec file system."""
    path: str
    """The path in its own spelling."""

    @property
    def patience(self) -> float:
        """Seconds for which calls are tried again; a disk that fails does not mend itself."""
        return 0.0 if self.protocol == "file" else PATIENCE

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
        filesystem = _filesystem(protocol, store_of(uri))
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(protocol)
        more = (
            f"; in Nightjar's folder: pip install -e '.[{extra}]'"
            if extra and isinstance(error, ImportError)
            else ""
        )
        raise SourceError(f"{uri!r}: cannot open {protocol}:// locations: {error}{more}") from error
    path = filesystem._strip_protocol(os.path.expanduser(uri) if protocol == "file" else uri)
    return Location(filesystem=filesystem, path=cast(str, path))


def absolute(uri: str) -> str:
    """The URL as a worker with another working directory must spell it."""
    at = locate(uri)
    return at.path if at.protocol == "file" else uri


def use_stores(stores: Sequence[StoreSpec]) -> None:
    """Reach stores as they say, in this process from now on.

    Args:
        stores: of those that reach a URL the one with the longest `uri` counts.
    """
    global _stores
    _stores = tuple(stores)


def store_of(uri: str) -> StoreSpec | None:
    """How the store at a URL is reached, where that was said."""
    fits = (store for store in _stores if store.reaches(uri))
    return max(fits, key=lambda store: len(store.uri), default=None)


@cache
def _filesystem(protocol: str, store: StoreSpec | None) -> AbstractFileSystem:
    settings = {} if store is None else store.options()
    if protocol == "s3":
        # s3fs and `patience` try again: a third loop within theirs would only multiply the waits
        more = settings.get("config_kwargs", {})
        settings["config_kwargs"] = more | {"retries": {"total_max_attempts": 1}}
    if protocol in ("gs", "gcs"):
        # fsspec's own choice asks over gRPC what kind of bucket each is, which may take a minute to
        # fail, for kinds that we do not use
        from gcsfs.core import GCSFileSystem as make
    else:
        make = partial(fsspec.filesystem, protocol)
    # listings are never cached: a listing decides which snapshot is the newest
    return cast(AbstractFileSystem, make(use_listings_cache=False, **settings))


def list_objects(pattern: str, suffixes: tuple[str, ...] = ()) -> list[StoredObject]:
    """The objects a URL names, sorted: a glob, one object, or a directory with all below it.

    Args:
        pattern: the URL.
        suffixes: for a directory, only names that end in one of these, in any case.

    Raises:
        SourceError: the store cannot be read, or a local link leads out of the directory.
    """
    at = locate(pattern)
    search = at.filesystem.glob if _GLOB & set(at.path) else at.filesystem.find
    patience = min(at.patience, FIRST_PATIENCE)
    try:
        found = patiently(partial(search, at.path, detail=True), pattern, patience)
        base = locate(patiently(partial(base_directory, pattern), pattern, patience)).path
    except FileNotFoundError:
        found, base = {}, ""
    except OSError as error:
        raise SourceError(f"cannot list {pattern!r}: {error}") from error
    if isinstance(found, list):
        # adlfs forgets the details of a path that is one object
        found = {path: _information(at, path) for path in found}
    whole = not suffixes or search == at.filesystem.glob or set(found) == {at.path}
    listed = []
    for path, info in sorted(cast("dict[str, dict[str, Any]]", found).items()):
        # an object that is named as it is was meant
        named = path == at.path
        if not named and _is_bookkeeping(path.removeprefix(base)):
            continue
        wanted = whole or path.lower().endswith(suffixes)
        if info.get("islink") and not named and (wanted or at.filesystem.isdir(path)):
            demand_within(path, base)
            # the listing told of the link, and not of what it leads to
            info = _information(at, path)
        if wanted and info["type"] == "file":
            listed.append(_stored(at, path, info))
    return listed


def open_object(stored: StoredObject, ahead: int = _READ_AHEAD) -> BinaryIO:
    """Open a listed object for random reads; faults of a store that pass are waited for.

    Args:
        stored: as listed.
        ahead: bytes that are asked for at a time where fewer are wanted.

    Raises:
        OSError: it cannot be read, now or later; always with an `errno`, which the complaints of
            Arrow about what is in a file have not.
    """
    at = locate(stored.uri)
    if at.protocol == "file":
        return open(at.path, "rb")
    return io.BufferedReader(Ranges(stored.size, partial(read_object, stored.uri)), ahead)


def _information(at: Location, path: str) -> dict[str, Any]:
    """What a store says of one object."""
    uri = cast(str, at.filesystem.unstrip_protocol(path))
    return cast(dict[str, Any], patiently(partial(at.filesystem.info, path), uri, at.patience))


def read_object(uri: str, start: int | None = None, stop: int | None = None) -> bytes:
    """The bytes of an object, or of a range of it; faults of a store that pass are waited for."""
    at = locate(uri)
    call = partial(at.filesystem.cat_file, at.path, start=start, end=stop)
    return cast(bytes, patiently(call, uri, at.patience))


def demand_unchanged(listed: StoredObject) -> None:
    """Refuse what has been read since an object was listed, unless it is still that object.

    Raises:
        SourceChanged: it was replaced, or is gone.
    """
    at = locate(listed.uri)
    try:
        now = _stored(at, at.path, _information(at, at.path))
    except FileNotFoundError:
        now = None
    if now != listed:
        what = "removed" if now is None else "changed"
        raise SourceChanged(
            f"{listed.uri} was {what} while the run read it; run the same command again: what is "
            "done is kept"
        )


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


def _stored(at: Location, path: str, info: dict[str, Any]) -> StoredObject:
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or info.get("mtime")
    uri = path if at.protocol == "file" else cast(str, at.filesystem.unstrip_protocol(path))
    return StoredObject(uri=uri, size=int(info["size"]), etag=str(etag).strip('"'))


def _is_bookkeeping(below: str) -> bool:
    """Whether a path below a source is of a tool and not of the corpus."""
    parts = below.split("/")
    return parts[-1] in _BOOKKEEPING or any(p.startswith(".") or p == "_temporary" for p in parts)
