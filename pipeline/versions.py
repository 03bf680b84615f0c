"""Versions: which one a user means who names a number, a tag, or none."""

from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.log import LogEntry


def published_version(folder: Folder, entry: LogEntry) -> int:
    """The version whose snapshot readers get, as of an entry.

    Raises:
        OutputError: none yet.
    """
    if not entry.published:
        raise OutputError(
            f"{folder.uri!r}: nothing is published yet; version {entry.snapshot} is a candidate: "
            f"`nightjar publish {folder.uri} {entry.snapshot}` gives it to readers"
        )
    return entry.published


def find_version(folder: Folder, newest: LogEntry, version: int | str) -> int:
    """The number of a version.

    Args:
        folder: the dataset's root.
        newest: entry of the log.
        version: a number, in digits or not, or a tag.

    Raises:
        OutputError: there is none of that number or tag.
    """
    if version in newest.tags:
        return newest.tags[str(version)]
    if not str(version).isdecimal():
        tags = ", ".join(newest.tags) or "none"
        raise OutputError(f"{folder.uri!r} has no tag {version!r}; its tags: {tags}")
    if not 1 <= int(version) <= newest.version:
        raise OutputError(f"{folder.uri!r} has no version {version}; it has 1 to {newest.version}")
    return int(version)
