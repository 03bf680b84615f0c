"""Garbage: files that no version to be kept refers to, deleted without a lease and without a clock.

A collection is itself a commit. It condemns files in a log entry of its own and only then deletes
them, so a driver that counted on one of them has prepared its commit on an older entry, loses it,
reads the new one, and does the units again whose files are condemned. What is condemned once is
condemned for ever: a collector that was thought dead may still delete it, and a writer that was
thought dead may still put it again.

Files that were never committed may be the work of a run in progress, or of one that was cut off and
will be gone on with. So those are left that are younger than the latest snapshot made in their way,
and all that are made in a way of which there is no snapshot yet. That spares work, and nothing else
depends on it; both times are the store's own.

What local writers left half written has no name that anything could refer to: it is deleted without
more ado, and a writer that is alive after all writes it again.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.commit import amend
from pipeline.folder import Folder, Listed
from pipeline.log import (
    CONDEMNED,
    LOG,
    MANIFESTS,
    Kind,
    LogEntry,
    content_name,
    entry_name,
    generation,
    read_condemned,
    read_log,
)
from pipeline.manifest import FOLDERS, read_manifest

KEPT_SNAPSHOTS = 7
"""A week of nights."""
_DELETED_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What may go, and what may not."""

    newest: LogEntry
    """The state by which it was found."""
    kept: tuple[int, ...]
    """The snapshots that stay readable."""
    expired: tuple[int, ...]
    """The snapshots that are readable until then, and no more."""
    files: dict[str, int]
    """Sizes in bytes by path of what no kept snapshot refers to."""
    unfinished: dict[str, int]
    """Bytes, by generation, of what was never committed and is left for a run to go on with."""
    superseded: tuple[str, ...]
    """Paths of the lists of condemned files that are parts of later lists."""
    half_written: tuple[str, ...]
    """Paths of what local writers left half written, or still write to."""


def find_garbage(folder: Folder, keep: int = KEPT_SNAPSHOTS, abandoned: bool = False) -> Garbage:
    """Look for garbage; nothing is written.

    Args:
        folder: the dataset's root.
        keep: how many of the newest snapshots stay readable, beside the published one, the one
            that was made last, and those with a tag.
        abandoned: whether what was never committed is garbage whatever its age.

    Raises:
        OutputError: nothing has been committed there, or what was is damaged.
    """
    entries = read_log(folder)
    # the log is listed once: another listing may be an older one
    newest = entries[-1]
    condemned = read_condemned(folder, newest)
    snapshots = {entry.version: entry for entry in entries if entry.kind is Kind.SNAPSHOT}
    last = sorted(snapshots)[-keep:] if keep else ()
    kept = {newest.published, newest.snapshot, *newest.tags.values(), *last} - {0}
    live = _named(folder, (snapshots[version] for version in kept))
    expired = [
        entry
        for version, entry in snapshots.items()
        if version not in kept and entry.manifest not in condemned
    ]
    gone = condemned | _named(folder, expired)
    latest = _latest(folder, snapshots.values())
    files: dict[str, int] = {}
    unfinished: Counter[str] = Counter()
    for path, made, found in _stored(folder):
        if path in live:
            continue
        young = made not in latest or found.modified >= latest[made]
        if young and path not in gone and not abandoned:
            unfinished[made] += found.size
        else:
            files[path] = found.size
    older = {entry.condemned for entry in entries} - {newest.condemned}
    lists = (f"{CONDEMNED}/{name}" for name in folder.names(CONDEMNED))
    return Garbage(
        newest=newest,
        kept=tuple(sorted(kept)),
        expired=tuple(entry.version for entry in expired),
        files=files,
        unfinished=dict(unfinished),
        superseded=tuple(path for path in lists if path in older),
        half_written=tuple(
            f"{place}/{name}" for place, _ in _places(folder) for name in folder.temporaries(place)
        ),
    )


def collect(folder: Folder, garbage: Garbage) -> None:
    """Condemn garbage, and delete it.

    Raises:
        CommitConflict: somebody committed since it was found; nothing was deleted.
    """
    condemned = read_condemned(folder, garbage.newest)
    if not condemned.issuperset(garbage.files):
        _condemn(folder, garbage.newest, condemned.union(garbage.files))
    doomed = [*garbage.files, *garbage.superseded, *garbage.half_written]
    with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
        # a list of condemned files only grows, so none of these names is ever put again
        list(pool.map(folder.delete, doomed))


def _named(folder: Folder, entries: Iterable[LogEntry]) -> set[str]:
    """Paths of the manifests of some snapshots, and of all that they name."""
    manifests = {entry.manifest for entry in entries}
    return manifests.union(*(read_manifest(folder, manifest).sizes for manifest in manifests))


def _latest(folder: Folder, snapshots: Iterable[LogEntry]) -> dict[str, float]:
    """When the latest snapshot of each generation was committed, and of all under ``."""
    listed = folder.listed(LOG)
    times: dict[str, float] = {}
    for entry in snapshots:
        found = listed.get(entry_name(entry.version).removeprefix(f"{LOG}/"))
        # one that an old listing has not yet is as young as can be
        time = 0.0 if found is None else found.modified
        for made in ("", generation(entry.fingerprint)):
            times[made] = max(times.get(made, 0.0), time)
    return times


def _stored(folder: Folder) -> Iterator[tuple[str, str, Listed]]:
    """(path, generation, what the listing tells) of every object that a snapshot may name."""
    for place, made in _places(folder):
        for name, found in folder.listed(place).items():
            yield f"{place}/{name}", made, found


def _places(folder: Folder) -> list[tuple[str, str]]:
    """(folder, generation); manifests have none."""
    made = [(f"{kind}/{m}", m) for kind in FOLDERS for m in folder.folders(kind)]
    return [*made, (MANIFESTS, "")]


def _condemn(folder: Folder, newest: LogEntry, condemned: Iterable[str]) -> None:
    paths = json.dumps(sorted(condemned)).encode()
    name = content_name(CONDEMNED, paths, "json")
    folder.put(name, paths)
    amend(folder, dataclasses.replace(newest, kind=Kind.GC, condemned=name))
