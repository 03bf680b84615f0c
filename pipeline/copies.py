"""A folder of objects as a local directory, for what reads nothing but files: a checkpoint.

Objects are copied one by one and range by range, so that one fault of a store in some gigabytes
costs one range asked for again, and no more than a range is held in memory. An object's key is
data: one that would lead out of the copy is refused.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from pipeline.errors import SourceError
from pipeline.storage import (
    Location,
    StoredObject,
    demand_unchanged,
    list_objects,
    locate,
    read_object,
)

Fetched = Callable[[float], object]
"""Told for how many seconds a copy was made, or waited for."""

_RANGE = 64 << 20
"""Bytes that are asked for at a time: few enough to be asked for again."""


def local_copy(uri: str, cache: Path, fetched: Fetched | None = None, *, only: str = "") -> Path:
    """A folder of objects as a local directory: itself when it is one, else a copy, made once.

    Args:
        uri: of the folder.
        cache: the local directory that holds the copies, one for each content.
        fetched: told where it was not there.
        only: the end of the names of those objects that are wanted; empty for all.

    Raises:
        SourceError: the folder is empty, cannot be read, or has an object whose name leads out.
        SourceChanged: an object was replaced while it was copied.
    """
    at = locate(uri)
    if at.protocol == "file":
        return Path(at.path)
    objects = [stored for stored in list_objects(uri) if stored.uri.endswith(only)]
    if not objects:
        raise SourceError(f"no object below {uri!r}" + (f" that ends in {only}" if only else ""))
    listing = "\n".join(f"{o.uri} {o.size} {o.etag}" for o in objects)
    target = cache / hashlib.sha256(listing.encode()).hexdigest()[:32]
    if target.is_dir():
        return target
    began = time.monotonic()
    cache.mkdir(parents=True, exist_ok=True)
    # of several workers on one host one copies and the others wait for it; a lock of a process that
    # dies is free again
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as temporary:
                _copy(at, objects, Path(temporary, "copy"))
                os.rename(f"{temporary}/copy", target)
    if fetched is not None:
        fetched(time.monotonic() - began)
    return target


def _copy(at: Location, objects: Sequence[StoredObject], to: Path) -> None:
    # all names are judged before anything is fetched
    for stored, name in [(stored, _name_below(at, stored)) for stored in objects]:
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for start in range(0, stored.size, _RANGE):
                stop = min(start + _RANGE, stored.size)
                file.write(read_object(stored.uri, start, stop))
        # or its ranges may be of two objects
        demand_unchanged(stored)
        written = path.stat().st_size
        if written != stored.size:
            # a copy is kept: nobody would ask again
            raise SourceError(f"{stored.uri!r}: {written} of its {stored.size} bytes came")


def _name_below(at: Location, stored: StoredObject) -> str:
    """The path of an object below the folder.

    Raises:
        SourceError: it would not lie below the copy.
    """
    root = at.path.rstrip("/") + "/"
    path = locate(stored.uri).path
    parts = path.removeprefix(root).split("/")
    if not path.startswith(root) or not {"", ".", ".."}.isdisjoint(parts):
        raise SourceError(f"{stored.uri!r} cannot be copied to a file of its name")
    return "/".join(parts)
