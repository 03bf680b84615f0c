"""How a snapshot becomes visible: one create-only log entry, written last.

Data files are immutable and named per attempt, the manifest is named by its own hash, and each is
whole before the next refers to it. When the outcome of the last write is unknown the entry is read
back: ours means success, one with the same source and fingerprint means somebody did this job. An
entry names the whole state, so a commit that is made again changes nothing.
"""

import dataclasses
import datetime
import hashlib
import json
import operator
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import CommitConflict, ConservationError, OutputError
from pipeline.folder import Folder, settle
from pipeline.log import (
    FORMAT,
    FORMAT_VERSION,
    Kind,
    LogEntry,
    entry_name,
    parse_entry,
    read_condemned,
    read_format,
)
from pipeline.manifest import Manifest, put_manifest
from pipeline.schema import difference
from pipeline.software import RECORDED, installed
from pipeline.verdict import PUBLISHED, Verdict
from pipeline.work import Receipt, WorkUnit

ROUNDS = 10
"""In which whoever decides by a state that another has changed decides anew."""


def digest(
    units: Iterable[WorkUnit],
    fingerprint: str,
    *,
    keep_gone: bool = False,
    unread: Iterable[str] = (),
) -> str:
    """What a snapshot is made from, as 64 hex digits: equal for equal work.

    Args:
        units: all of the source.
        fingerprint: of every embedding.
        keep_gone: whether rows that are gone from the source stay.
        unread: keys of shards whose rows stay because they cannot be read.
    """
    keys = sorted(unit.key(fingerprint) for unit in units) + ["keep"] * keep_gone
    keys += [f"unread {key}" for key in sorted(unread)]
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def demand_fit(
    folder: Folder, newest: LogEntry | None, schema: pa.Schema, fingerprints: Sequence[str]
) -> None:
    """Refuse an output that holds another schema, or vectors made another way.

    Args:
        folder: the dataset's root.
        newest: entry of its log.
        schema: of this job's output.
        fingerprints: those this job may turn out to have.

    Raises:
        OutputError: says what differs and the way out; or format.json is damaged.
    """
    read_format(folder)
    if newest is None:
        return
    differs = difference(schema, newest.row_schema)
    if differs is not None:
        raise OutputError(
            f"output.uri: {folder.uri!r} already holds a dataset of another schema ({differs}); "
            "choose another output.uri"
        )
    if newest.fingerprint not in fingerprints:
        raise OutputError(
            f"output.uri: {folder.uri!r} already holds vectors made another way (fingerprint "
            f"{newest.fingerprint[:8]}, this job has {fingerprints[0][:8]}: another "
            "checkpoint, prompt, bound or dtype); choose another output.uri"
        )


def find_snapshot(newest: LogEntry | None, source_digest: str, fingerprint: str) -> LogEntry | None:
    """The newest entry of the log, when it was made from exactly this work.

    A candidate that was discarded is made anew; what readers had, and a person took back, is not.
    """
    if newest is None or (newest.candidate and newest.snapshot in newest.withheld):
        return None
    same = (newest.source_digest, newest.fingerprint) == (source_digest, fingerprint)
    return newest if same else None


def reconcile(units: Mapping[str, WorkUnit], receipts: Mapping[str, Receipt]) -> list[Receipt]:
    """The receipts in the order of the plan, provided they account for every row exactly once.

    Args:
        units: of the plan, by key.
        receipts: likewise.

    Raises:
        ConservationError: a unit without a receipt, a receipt of no unit, or rows that do not add
            up.
    """
    if receipts.keys() != units.keys():
        raise ConservationError(
            f"{len(units)} units were planned, and there are receipts for {len(receipts)}; "
            "nothing was committed"
        )
    for key, unit in units.items():
        receipt = receipts[key]
        outcomes = (receipt.embedded, receipt.linked, receipt.quarantined)
        accounted = sum(sum(outcome.values()) for outcome in outcomes)
        written = sum(file.rows for file in receipt.files)
        if receipt.rows != unit.rows or not receipt.items == accounted == written:
            raise ConservationError(
                f"unit {key} of {unit.segment.shard.uri}: {unit.rows} rows planned, {receipt.rows} "
                f"read, {receipt.items} items in, {accounted} embedded or quarantined, {written} "
                "written; nothing was committed"
            )
    return [receipts[key] for key in units]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is to be committed."""

    manifest: Manifest
    """All that it holds."""
    schema: pa.Schema
    """Of its rows."""
    fingerprint: str
    """Of every embedding in it."""
    source_digest: str
    """From `digest`."""


def commit(
    folder: Folder, snapshot: Snapshot, parent: LogEntry | None, verdict: Verdict = PUBLISHED
) -> LogEntry:
    """Make a snapshot the next version.

    Args:
        folder: the dataset's root.
        snapshot: all of whose files are there.
        parent: the newest entry when they were found to be; None for none. If another has been
            committed since, they may be there no longer.

    Raises:
        CommitConflict: another driver committed something else meanwhile.
    """
    _create_format(folder)
    name = put_manifest(folder, snapshot.manifest, read_condemned(folder, parent))
    version = 1 if parent is None else parent.version + 1
    entry = LogEntry(
        **_commit_fields(version),
        kind=Kind.SNAPSHOT,
        snapshot=version,
        published=version if verdict.publish else 0 if parent is None else parent.published,
        candidate=not verdict.publish,
        refused=list(verdict.refused),
        quality=dict(verdict.quality),
        manifest=name,
        rows=snapshot.manifest.rows,
        quarantined=snapshot.manifest.quarantined,
        fingerprint=snapshot.fingerprint,
        schema=snapshot.schema.serialize().to_pybytes().hex(),
        source_digest=snapshot.source_digest,
        tags={} if parent is None else parent.tags,
        withheld=[] if parent is None else parent.withheld,
        condemned=None if parent is None else parent.condemned,
    )
    there = _append(folder, entry)
    what = operator.attrgetter("source_digest", "fingerprint", "manifest", "published")
    if there.commit_id != entry.commit_id and what(there) != what(entry):
        raise _conflict(folder, version)
    return there


def amend(folder: Folder, changed: LogEntry) -> LogEntry:
    """Make another state of the dataset the next version.

    Args:
        folder: the dataset's root.
        changed: the newest entry, by which the change was decided, with the change.

    Raises:
        CommitConflict: another state is there by now; nothing was changed.
    """
    entry = dataclasses.replace(changed, **_commit_fields(changed.version + 1))
    if _append(folder, entry).commit_id != entry.commit_id:
        raise _conflict(folder, entry.version)
    return entry


def contended(folder: Folder) -> CommitConflict:
    """Others were faster in every one of `ROUNDS`."""
    return CommitConflict(
        f"{folder.uri!r}: others committed {ROUNDS} times meanwhile; run the same command again"
    )


def _commit_fields(version: int) -> dict[str, Any]:
    """Of an entry: what tells this commit from any other."""
    return dict(
        version=version,
        commit_id=uuid.uuid4().hex,
        parent=version - 1,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=installed(RECORDED),
    )


def _append(folder: Folder, entry: LogEntry) -> LogEntry:
    """Make an entry the next of the log, unless another is there: the one that is there then."""
    data = entry.to_json().encode()
    return parse_entry(folder, entry.version, settle(folder, entry_name(entry.version), data))


def _conflict(folder: Folder, version: int) -> CommitConflict:
    return CommitConflict(
        f"{folder.uri!r}: another driver committed version {version} meanwhile; run the same "
        "command again"
    )


def _create_format(folder: Folder) -> None:
    described = {"format_version": FORMAT_VERSION, "dataset_id": uuid.uuid4().hex}
    settle(folder, FORMAT, json.dumps(described, indent=1).encode())
    read_format(folder)
