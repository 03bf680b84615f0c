"""How a snapshot becomes visible: one create-only log entry, written last.

Data files are immutable and named per attempt, the manifest is named by its own hash, and each is
whole before the next refers to it. When the outcome of the last write is unknown the entry is read
back: ours means success, one with the same source and fingerprint means somebody did this job. An
entry names the whole state, so a commit that is made again changes nothing.
"""

import dataclasses
import datetime
import hashlib
import io
import json
import operator
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import CommitConflict, ConservationError, OutputError, RunError
from pipeline.folder import Folder, settle
from pipeline.log import (
    DATA,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_SCHEMA,
    MANIFESTS,
    QUARANTINE,
    Kind,
    LogEntry,
    content_name,
    entry_name,
    parse_entry,
    read_condemned,
    read_format,
    read_manifest,
    schema_of,
)
from pipeline.schema import difference
from pipeline.software import installed
from pipeline.spec import LimitsSpec
from pipeline.work import Receipt, WorkUnit, tally

_RECORDED = ("nightjar", "ray", "torch", "transformers", "pyarrow", "pillow")


def digest(units: Iterable[WorkUnit], fingerprint: str) -> str:
    """What a snapshot is made from, as 64 hex digits: equal for equal work."""
    keys = sorted(unit.key(fingerprint) for unit in units)
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def demand_fit(folder: Folder, schema: pa.Schema, fingerprints: Sequence[str]) -> None:
    """Refuse an output that holds another schema, or vectors made another way.

    Args:
        folder: the dataset's root.
        schema: of this job's output.
        fingerprints: those this job may turn out to have.

    Raises:
        OutputError: says what differs and the way out.
    """
    described = read_format(folder)
    if described is None:
        return
    differs = difference(schema, schema_of(described))
    if differs is not None:
        raise OutputError(
            f"output.uri: {folder.uri!r} already holds a dataset of another schema ({differs}); "
            "choose another output.uri"
        )
    if described["fingerprint"] not in fingerprints:
        raise OutputError(
            f"output.uri: {folder.uri!r} already holds vectors made another way (fingerprint "
            f"{described['fingerprint'][:8]}, this job has {fingerprints[0][:8]}: another "
            "checkpoint, prompt, bound or dtype); choose another output.uri"
        )


def find_snapshot(newest: LogEntry | None, source_digest: str, fingerprint: str) -> LogEntry | None:
    """The newest entry of the log, when it was made from exactly this work."""
    if newest is None:
        return None
    same = (newest.source_digest, newest.fingerprint) == (source_digest, fingerprint)
    return newest if same else None


def reconcile(
    units: Sequence[WorkUnit], receipts: Mapping[str, Receipt], fingerprint: str
) -> list[Receipt]:
    """The receipts in the order of the plan, provided they account for every row exactly once.

    Args:
        units: of the plan.
        receipts: by the key of their unit.
        fingerprint: of every embedding.

    Raises:
        ConservationError: a unit without a receipt, a receipt of no unit, or rows that do not add
            up.
    """
    planned = {unit.key(fingerprint): unit for unit in units}
    if receipts.keys() != planned.keys():
        raise ConservationError(
            f"{len(planned)} units were planned, and there are receipts for {len(receipts)}; "
            "nothing was committed"
        )
    for key, unit in planned.items():
        receipt = receipts[key]
        accounted = sum(receipt.embedded.values()) + sum(receipt.quarantined.values())
        written = sum(file.rows for file in receipt.files)
        if receipt.rows != unit.rows or not receipt.items == accounted == written:
            raise ConservationError(
                f"unit {key} of {unit.segment.shard.uri}: {unit.rows} rows planned, {receipt.rows} "
                f"read, {receipt.items} items in, {accounted} embedded or quarantined, {written} "
                "written; nothing was committed"
            )
    return [receipts[key] for key in planned]


def demand_healthy(receipts: Sequence[Receipt], limits: LimitsSpec) -> None:
    """Refuse receipts with too little embedded: more often a fault of the run than of the rows.

    Raises:
        RunError: says how much was set aside and why, and the way out.
    """
    total = tally(receipts)
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in total.quarantined.most_common())
    if not total.embedded:
        raise RunError(
            f"all {total.items:,} items were quarantined ({reasons}); nothing was committed"
        )
    share = total.quarantined.total() / total.items
    if share > limits.quarantine_share:
        raise RunError(
            f"limits.quarantine_share: {limits.quarantine_share:g}, but {share:.2%} of the "
            f"{total.items:,} items were quarantined ({reasons}); nothing was committed; mend the "
            "source, or raise the limit and run the same command again: what is embedded is kept"
        )


def commit(
    folder: Folder,
    *,
    schema: pa.Schema,
    fingerprint: str,
    source_digest: str,
    receipts: Sequence[Receipt],
    parent: LogEntry | None,
) -> LogEntry:
    """Make a snapshot of exactly these files the next version.

    Args:
        folder: the dataset's root.
        schema: of the embeddings.
        fingerprint: of every embedding.
        source_digest: from `digest`.
        receipts: in the order of the plan, from `reconcile`.
        parent: the newest entry when the receipts were found valid; None for none. If another has
            been committed since, they may be valid no longer.

    Raises:
        CommitConflict: another driver committed something else meanwhile.
    """
    _create_format(folder, schema, fingerprint)
    name = _put_manifest(folder, _manifest(receipts), read_condemned(folder, parent))
    total = tally(receipts)
    version = 1 if parent is None else parent.version + 1
    entry = LogEntry(
        **_commit_fields(version),
        kind=Kind.SNAPSHOT,
        snapshot=version,
        published=version,
        manifest=name,
        rows=total.embedded.total(),
        quarantined=total.quarantined.total(),
        fingerprint=fingerprint,
        source_digest=source_digest,
        tags={} if parent is None else parent.tags,
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


def _commit_fields(version: int) -> dict[str, Any]:
    """Of an entry: what tells this commit from any other."""
    return dict(
        version=version,
        commit_id=uuid.uuid4().hex,
        parent=version - 1,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=installed(_RECORDED),
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


def _create_format(folder: Folder, schema: pa.Schema, fingerprint: str) -> None:
    described = {
        "format_version": FORMAT_VERSION,
        "dataset_id": uuid.uuid4().hex,
        "fingerprint": fingerprint,
        "schema": schema.serialize().to_pybytes().hex(),
        "schema_text": {field.name: str(field.type) for field in schema},
    }
    settle(folder, FORMAT, json.dumps(described, indent=1).encode())
    demand_fit(folder, schema, [fingerprint])


def holds(folder: Folder, entry: LogEntry, receipts: Sequence[Receipt]) -> bool:
    """Whether a snapshot is of exactly these files."""
    return bool(read_manifest(folder, entry.manifest).equals(_manifest(receipts)))


def _manifest(receipts: Sequence[Receipt]) -> pa.Table:
    rows = [
        {"kind": kind, "unit": receipt.unit, "adapter": receipt.adapter, **asdict(file)}
        for receipt in receipts
        for kind, file in ((DATA, receipt.data), (QUARANTINE, receipt.quarantine))
        if file is not None
    ]
    return pa.Table.from_pylist(rows, MANIFEST_SCHEMA)


def _put_manifest(folder: Folder, manifest: pa.Table, condemned: Collection[str]) -> str:
    """Put a manifest under the name of its content; the name.

    A name that is condemned may be deleted at any moment, so the same state has another one when it
    comes again.
    """
    for edition in count():
        buffer = io.BytesIO()
        marked = manifest.replace_schema_metadata({"edition": str(edition)} if edition else None)
        pq.write_table(marked, buffer, compression="zstd")
        name = content_name(MANIFESTS, buffer.getvalue(), "parquet")
        if name not in condemned:
            folder.put(name, buffer.getvalue())
            break
    return name
