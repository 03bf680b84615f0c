"""Which snapshot readers get, and which versions have a name.

Each change is one more entry of the log: nothing that was committed is changed or moved back, so
two who decide at once are told of each other, and a reader never sees half of a change.
"""

import dataclasses
import operator
import re
from collections.abc import Callable
from contextlib import suppress

from pipeline.commit import ROUNDS, amend, contended
from pipeline.dataset import demand_there
from pipeline.errors import CommitConflict, OutputError
from pipeline.folder import Folder
from pipeline.log import Kind, LogEntry, demand_committed, read_condemned, read_entry
from pipeline.versions import find_version, published_version

_TAG = re.compile(r"[a-z][a-z0-9._-]{0,62}")
_MOST_TAGS = 100
"""Every entry of the log repeats them."""


def publish(folder: Folder, version: int | str) -> LogEntry:
    """Give readers a snapshot that is newer than the one they get; the newest entry then.

    Args:
        folder: the dataset's root.
        version: a number or a tag.

    Raises:
        OutputError: no such snapshot is there, or it is older, or a file of it is gone.
        CommitConflict: others kept committing.
    """

    def change(newest: LogEntry) -> LogEntry:
        chosen = _snapshot(folder, newest, version)
        if chosen < newest.published:
            raise OutputError(
                f"version {chosen} is older than the published one, {newest.published}; `nightjar "
                f"rollback {folder.uri} {version}` goes back to it"
            )
        trusted = [version for version in newest.withheld if version != chosen]
        return dataclasses.replace(
            newest,
            kind=Kind.PUBLISH,
            published=chosen,
            withheld=trusted,
            candidate=newest.candidate and chosen != newest.snapshot,
        )

    return _amended(folder, change)


def roll_back(folder: Folder, version: int | str) -> LogEntry:
    """Give readers an earlier snapshot again; the newest entry then.

    What later snapshots of the same generation added is withheld, and so is what later ones added
    that the gate has refused: no run uses their vectors again. So to go back to the published one
    itself is to discard the candidates after it.

    Args:
        folder: the dataset's root.
        version: a number or a tag; 0 where nothing is published yet, to discard the candidates.

    Raises:
        OutputError: no such snapshot is there, or it is newer, or a file of it is gone.
        CommitConflict: others kept committing.
    """

    def change(newest: LogEntry) -> LogEntry:
        nothing = not newest.published and str(version) == "0"
        chosen = 0 if nothing else _snapshot(folder, newest, version)
        if not nothing and chosen > published_version(folder, newest):
            raise OutputError(
                f"version {chosen} is newer than the published one, {newest.published}; `nightjar "
                f"publish {folder.uri} {version}` goes forward to it"
            )
        made_by = None if nothing else read_entry(folder, chosen).fingerprint
        later = (read_entry(folder, n) for n in range(chosen + 1, newest.version + 1))
        # another generation shares nothing with it, and is not to be made once more
        doubted = {
            entry.version
            for entry in later
            if entry.kind is Kind.SNAPSHOT
            and (nothing or entry.refused or entry.fingerprint == made_by)
        }
        return dataclasses.replace(
            newest,
            kind=Kind.ROLLBACK,
            published=chosen,
            withheld=sorted(doubted.union(newest.withheld) - {chosen}),
        )

    return _amended(folder, change)


def tag(folder: Folder, name: str, version: int | str | None = None) -> LogEntry:
    """Name a version, so that it is kept; the newest entry then.

    Args:
        folder: the dataset's root.
        name: a lower-case letter, then letters, digits, `.`, `_` and `-`, at most 63 in all. One
            that another version has is taken from it.
        version: a number or a tag; None for the published one.

    Raises:
        OutputError: the name will not do, or no such snapshot is there.
        CommitConflict: others kept committing.
    """
    if not _TAG.fullmatch(name):
        raise OutputError(
            f"tag: {name!r} is not a lower-case letter and up to 62 letters, digits, '.', '_', '-'"
        )

    def change(newest: LogEntry) -> LogEntry:
        named = published_version(folder, newest) if version is None else version
        chosen = _snapshot(folder, newest, named)
        tags = newest.tags | {name: chosen}
        if len(tags) > _MOST_TAGS:
            raise OutputError(f"{folder.uri!r} has {_MOST_TAGS} tags, and more are not kept")
        return dataclasses.replace(newest, kind=Kind.TAG, tags=tags)

    return _amended(folder, change)


def untag(folder: Folder, name: str) -> LogEntry:
    """Take a name from its version; the newest entry then.

    Raises:
        OutputError: no version has it.
        CommitConflict: others kept committing.
    """

    def change(newest: LogEntry) -> LogEntry:
        if name not in newest.tags:
            tags = ", ".join(newest.tags) or "none"
            raise OutputError(f"{folder.uri!r} has no tag {name!r}; its tags: {tags}")
        rest = {other: version for other, version in newest.tags.items() if other != name}
        return dataclasses.replace(newest, kind=Kind.TAG, tags=rest)

    return _amended(folder, change)


def _snapshot(folder: Folder, newest: LogEntry, version: int | str) -> int:
    """The number of a version that made a snapshot, all files of which are there to stay.

    Raises:
        OutputError: it is not such a version.
    """
    entry = read_entry(folder, find_version(folder, newest, version))
    if entry.kind is not Kind.SNAPSHOT:
        raise OutputError(
            f"version {entry.version} made no snapshot: it is a {entry.kind}, after which readers "
            f"got version {entry.published}"
        )
    if entry.manifest in read_condemned(folder, newest):
        raise OutputError(f"version {entry.version} was collected by `nightjar gc`")
    demand_there(folder, entry)
    return entry.version


def _amended(folder: Folder, change: Callable[[LogEntry], LogEntry]) -> LogEntry:
    """Commit a change, decided anew as often as others commit before it."""
    for _ in range(ROUNDS):
        newest = demand_committed(folder)
        changed = change(newest)
        state = operator.attrgetter("published", "tags", "withheld")
        if state(changed) == state(newest):
            return newest
        with suppress(CommitConflict):
            return amend(folder, changed)
    raise contended(folder)
