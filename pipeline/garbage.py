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

Some garbage is deleted without more ado. What local writers left half written has no name that
anything could refer to, and a writer that is alive after all writes it again. What planning learned
of a shard only spares a look at it. Of the lists of condemned files each holds all of the one
before, so one that is no longer than the newest is named by no later entry, and whoever has put it
and is about to name it has lost its race; longer ones are left until the newest has outgrown them.

Unit records are never deleted, void as those of condemned files are for ever. To delete one would
let no snapshot name a file that is gone, since commits do not rest on records; but it would set its
name free. A driver puts the next record of the unit there, and a collector that is slow, or was
thought dead, deletes that one: work that is done counts as not done, or a run is refused because
what it has just recorded is not there. Only names that are never used again could be deleted, and a
record that says which name is next is as large as the one it would replace.
"""

import dataclasses
import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from pipeline.manifest import FOLDERS, INSPECTIONS, Manifest, read_manifest
from pipeline.records import WORK
from pipeline.runs import RUNS, expired_runs

KEPT_SNAPSHOTS = 7
"""A week of nights."""
KEPT_RUNS = 1000
"""Accounts of runs that stay: years of nights."""
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
    """Paths of the lists of condemned files that no later entry can name."""
    forgotten: tuple[str, ...]
    """Paths of what planning learned of shards that no kept snapshot was made from."""
    accounts: tuple[str, ...]
    """Paths of the accounts of all runs but the last `KEPT_RUNS`."""
    half_written: tuple[str, ...]
    """Paths of what local writers left half written, or still write to."""

    @property
    def beside(self) -> tuple[str, ...]:
        """Paths of what no snapshot could refer to, and is deleted without more ado."""
        return (*self.superseded, *self.forgotten, *self.accounts, *self.half_written)


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
    readable = [v for v, entry in snapshots.items() if entry.manifest not in condemned]
    last = readable[-keep:] if keep else ()
    kept = {newest.published, newest.snapshot, *newest.tags.values(), *last} - {0}
    held = _manifests(folder, (snapshots[version] for version in kept))
    live = _named(held)
    expired = [snapshots[v] for v in readable if snapshots[v].manifest not in held]
    gone = condemned | _named(_manifests(folder, expired))
    times = _times(folder, snapshots)
    latest = _latest(snapshots.values(), times)
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
    return Garbage(
        newest=newest,
        kept=tuple(sorted(kept)),
        expired=tuple(entry.version for entry in expired),
        files=files,
        unfinished=dict(unfinished),
        superseded=_superseded(folder, newest),
        forgotten=_forgotten(folder, held.values(), min(times[version] for version in kept)),
        accounts=tuple(expired_runs(folder, KEPT_RUNS)),
        half_written=_half_written(folder),
    )


def collect(folder: Folder, garbage: Garbage) -> None:
    """Condemn garbage, and delete it.

    Raises:
        CommitConflict: somebody committed since it was found; nothing was deleted.
    """
    condemned = read_condemned(folder, garbage.newest)
    if not condemned.issuperset(garbage.files):
        _condemn(folder, garbage.newest, condemned.union(garbage.files))
    with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
        list(pool.map(folder.delete, [*garbage.files, *garbage.beside]))


def _manifests(folder: Folder, entries: Iterable[LogEntry]) -> dict[str, Manifest]:
    """The manifests of some snapshots, by path."""
    return {name: read_manifest(folder, name) for name in {entry.manifest for entry in entries}}


def _named(manifests: Mapping[str, Manifest]) -> set[str]:
    """Paths of some manifests, and of all that they name."""
    return {*manifests}.union(*(manifest.sizes for manifest in manifests.values()))


def _times(folder: Folder, snapshots: Iterable[int]) -> dict[int, float]:
    """When each snapshot was committed."""
    listed = folder.listed(LOG)
    names = {version: entry_name(version).removeprefix(f"{LOG}/") for version in snapshots}
    return {
        # one that an old listing has not yet makes nothing old
        version: found.modified if (found := listed.get(name)) is not None else 0.0
        for version, name in names.items()
    }


def _latest(snapshots: Iterable[LogEntry], times: Mapping[int, float]) -> dict[str, float]:
    """When the latest snapshot of each generation was committed, and of all under ``."""
    latest: dict[str, float] = {}
    for entry in snapshots:
        for made in ("", generation(entry.fingerprint)):
            latest[made] = max(latest.get(made, 0.0), times[entry.version])
    return latest


def _superseded(folder: Folder, newest: LogEntry) -> tuple[str, ...]:
    """Lists of condemned files that no entry after the newest names.

    Every later list holds all of the newest one, so it is longer, or the same.
    """
    sizes = {f"{CONDEMNED}/{name}": size for name, size in folder.sizes(CONDEMNED).items()}
    longest = sizes.pop(newest.condemned or "", 0)
    return tuple(path for path, size in sizes.items() if size <= longest)


def _forgotten(folder: Folder, kept: Iterable[Manifest], oldest: float) -> tuple[str, ...]:
    """What was learned before the oldest kept snapshot, of shards that are in none of them."""
    states = {shard.state for manifest in kept for shard in manifest.shards}
    return tuple(
        f"{INSPECTIONS}/{name}"
        for name, found in folder.listed(INSPECTIONS).items()
        if found.modified < oldest and name.partition("-")[0] not in states
    )


def _half_written(folder: Folder) -> tuple[str, ...]:
    """What local writers left anywhere below the root, or still write to."""
    work = [f"{WORK}/{made}" for made in folder.folders(WORK)]
    places = [
        "",
        LOG,
        CONDEMNED,
        INSPECTIONS,
        RUNS,
        *work,
        *(place for place, _ in _places(folder)),
    ]
    return tuple(
        posixpath.join(place, name) for place in places for name in folder.temporaries(place)
    )


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
