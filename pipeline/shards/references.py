"""Images that a row names by a path below the source, or by a URL on a host that the spec names.

A path comes from data, so it is held below the source: no scheme, no absolute path, no `..`, no
percent-encoding. What cannot be fetched is a fault of its row, not of the run.
"""

import errno
import posixpath
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from pipeline.errors import Reason, RowError
from pipeline.links import leads_below
from pipeline.source_spec import SourceSpec
from pipeline.storage import base_directory, locate, read_object
from pipeline.web import fetch, is_url

IMAGES_AT_ONCE = 8
"""How many images one worker reads at a time, whether rows name them or a folder holds them."""
_NOTHING_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_IMPOSSIBLE_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)


def base_of(source: SourceSpec, uri: str) -> str:
    """The directory, as a URL, that paths in a shard's rows and the names of images begin at.

    It is where the pattern that names the object begins; of several such patterns the longest.
    """
    return _place(source, uri)[0]


def name_of(source: SourceSpec, uri: str) -> str:
    """The path of an object below that directory."""
    return _place(source, uri)[1]


def _place(source: SourceSpec, uri: str) -> tuple[str, str]:
    path = locate(uri).path
    bases = _bases(source.uris)
    for prefix, base in bases:
        if path.startswith(prefix):
            return base, path.removeprefix(prefix)
    return bases[0][1], path


@cache
def _bases(patterns: tuple[str, ...]) -> list[tuple[str, str]]:
    """(the path and a slash, the URL) of the directory that each pattern begins at, longest first.

    Kept, since a folder may hold millions of images.
    """
    bases = [(f"{locate(b).path.rstrip('/')}/", b) for b in map(base_directory, patterns)]
    return sorted(bases, key=lambda base: len(base[0]), reverse=True)


def read_images(
    base: str, paths: list[str | None], hosts: Collection[str]
) -> list[bytes | RowError | None]:
    """The bytes of each image, in order; a RowError in place of one that cannot be had.

    Args:
        base: the directory the paths are relative to, as a URL.
        paths: relative paths or http(s) URLs; None where the row has no image.
        hosts: from which URLs are fetched.
    """
    if not any(path is not None for path in paths):
        return [None] * len(paths)
    with ThreadPoolExecutor(IMAGES_AT_ONCE) as pool:
        return list(pool.map(lambda path: _read(base, path, hosts), paths))


def _read(base: str, path: str | None, hosts: Collection[str]) -> bytes | RowError | None:
    if path is None:
        return None
    try:
        return fetch(path, hosts) if is_url(path) else read_object(_below(base, path))
    except RowError as error:
        return error
    except OSError as error:
        # a path that can name nothing is the row's fault; anything else is the store's
        if not isinstance(error, _NOTHING_THERE) and error.errno not in _IMPOSSIBLE_NAMES:
            raise
        return RowError(Reason.IMAGE_NOT_FOUND, f"no object {path[:200]!r} below {base}")


def _below(base: str, path: str) -> str:
    """The URL of a path, held below the base.

    Raises:
        RowError: the path could lead elsewhere.
    """
    parts = path.split("/")
    unsafe = "://" in path or path.startswith("/") or ".." in parts or "%" in path or "\\" in path
    if unsafe or not path or "\0" in path:
        raise RowError(Reason.UNSAFE_PATH, f"{path[:200]!r} is not a plain path below the source")
    uri = f"{base.rstrip('/')}/{posixpath.normpath(path)}"
    at = locate(uri)
    # a symbolic link below the source may still point out of it
    if at.protocol == "file" and not leads_below(Path(at.path), Path(locate(base).path)):
        raise RowError(Reason.UNSAFE_PATH, f"{path[:200]!r} is a link out of the source")
    return uri
