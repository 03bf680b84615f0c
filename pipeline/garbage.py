"""Garbage: files that no version refers to, deleted without a lease and without a clock.

A collection is itself a commit. It condemns files in a log entry of its own and only then deletes
them, so a driver that counted on one of them has prepared its commit on an older entry, loses it,
reads the new one, and does the units again whose files are condemned. What is condemned once is
condemned for ever: a collector that was thought dead may still delete it, and a writer that was
thought dead may still put it again.

What local writers left half written has no name that anything could refer to: it is deleted without
more ado, and a writer that is alive after all writes it again.
"""

import dataclasses
import datetime
import json
import uuid
from collections.abc import Collection
from contextlib import suppress

from pipeline.commit import append, conflict
from pipeline.folder import Folder
from pipeline.log import (
    CONDEMNED,
    DATA,
    QUARANTINE,
    LogEntry,
    content_name,
    newest_entry,
    read_condemned,
    read_entry,
    read_manifest,
)


def find_garbage(folder: Folder, newest: LogEntry, keep: Collection[int]) -> list[str]:
    """Paths of the files that no version to be kept refers to.

    Units that were embedded and never committed are among them: a run in progress would embed them
    again.

    Args:
        folder: the dataset's root.
        newest: entry of the log; what it refers to is kept in any case.
        keep: versions beside it.
    """
    # asked for by number: a listing of the log may be an old one
    manifests = {newest.manifest}
    for version in keep:
        with suppress(FileNotFoundError):
            manifests.add(read_entry(folder, version).manifest)
    live = {
        path
        for manifest in manifests
        for path in read_manifest(folder, manifest)["path"].to_pylist()
    }
    listed = (
        f"{kind}/{made_by}/{name}"
        for kind in (DATA, QUARANTINE)
        for made_by in folder.folders(kind)
        for name in folder.names(f"{kind}/{made_by}")
    )
    return [path for path in listed if path not in live]


def collect(folder: Folder, keep: Collection[int]) -> list[str]:
    """Condemn what `find_garbage` finds, and delete it and what is half written; the paths.

    Raises:
        CommitConflict: another driver committed meanwhile; nothing was deleted.
    """
    newest = newest_entry(folder)
    if newest is None:
        return []
    garbage = find_garbage(folder, newest, keep)
    if garbage:
        _condemn(folder, newest, read_condemned(folder, newest).union(garbage))
    garbage += _half_written(folder)
    for path in garbage:
        folder.delete(path)
    return garbage


def _half_written(folder: Folder) -> list[str]:
    return [
        f"{kind}/{made_by}/{name}"
        for kind in (DATA, QUARANTINE)
        for made_by in folder.folders(kind)
        for name in folder.temporaries(f"{kind}/{made_by}")
    ]


def _condemn(folder: Folder, newest: LogEntry, condemned: Collection[str]) -> None:
    paths = json.dumps(sorted(condemned)).encode()
    name = content_name(CONDEMNED, paths, "json")
    folder.put(name, paths)
    entry = dataclasses.replace(
        newest,
        version=newest.version + 1,
        commit_id=uuid.uuid4().hex,
        parent=newest.version,
        kind="gc",
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        condemned=name,
    )
    if append(folder, entry).commit_id != entry.commit_id:
        raise conflict(folder, entry.version)
