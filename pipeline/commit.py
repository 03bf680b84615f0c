"""How a snapshot becomes visible: one create-only log entry, written last.

Data files are immutable and named per attempt, the manifest is named by its own hash, and each is
whole before the next refers to it. When the outcome of the last write is unknown the entry is read
back: ours means success, one with the same source and fingerprint means somebody did this job.
"""

import datetime
import hashlib
import io
import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import (
    DATA,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_SCHEMA,
    MANIFESTS,
    QUARANTINE,
    LogEntry,
    entry_name,
    list_versions,
    read_entry,
    read_format,
    schema_of,
)
from pipeline.errors import CommitConflict, ConservationError, OutputError, RunError
from pipeline.schema import difference
from pipeline.storage import Folder
from pipeline.versions import installed
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


def find_snapshot(folder: Folder, source_digest: str, fingerprint: str) -> LogEntry | None:
    """The newest snapshot, when it was made from exactly this work."""
    versions = list_versions(folder)
    if not versions:
        return None
    entry = read_entry(folder, versions[-1])
    same = (entry.source_digest, entry.fingerprint) == (source_digest, fingerprint)
    return entry if same else None


def reconcile(
    units: Sequence[WorkUnit], receipts: Sequence[Receipt], fingerprint: str
) -> list[Receipt]:
    """The receipts in the order of the plan, provided they account for every row exactly once.

    Raises:
        ConservationError: a unit without a receipt, with two, or whose rows do not add up.
    """
    by_key = {receipt.unit: receipt for receipt in receipts}
    planned = {unit.key(fingerprint): unit for unit in units}
    if len(by_key) != len(receipts) or by_key.keys() != planned.keys():
        raise ConservationError(
            f"{len(planned)} units were planned, {len(receipts)} receipts came back for "
            f"{len(by_key)} units; nothing was committed"
        )
    for key, unit in planned.items():
        receipt = by_key[key]
        accounted = sum(receipt.embedded.values()) + sum(receipt.quarantined.values())
        written = sum(f.rows for f in (receipt.data, receipt.quarantine) if f is not None)
        if receipt.rows != unit.rows or not receipt.items == accounted == written:
            raise ConservationError(
                f"unit {key} of {unit.segment.shard.uri}: {unit.rows} rows planned, {receipt.rows} "
                f"read, {receipt.items} items in, {accounted} embedded or quarantined, {written} "
                "written; nothing was committed"
            )
    return [by_key[key] for key in planned]


def commit(
    folder: Folder,
    *,
    schema: pa.Schema,
    fingerprint: str,
    source_digest: str,
    receipts: Sequence[Receipt],
    parent: int,
) -> LogEntry:
    """Make a snapshot of exactly these files the next version.

    Args:
        folder: the dataset's root.
        schema: of the embeddings.
        fingerprint: of every embedding.
        source_digest: from `digest`.
        receipts: in the order of the plan, from `reconcile`.
        parent: the newest version when the run began; 0 for none.

    Raises:
        RunError: a file that a receipt names is not there.
        CommitConflict: another driver committed something else meanwhile.
    """
    _demand_files(folder, receipts)
    _create_format(folder, schema, fingerprint)
    manifest = _manifest_bytes(receipts)
    name = f"{MANIFESTS}/{hashlib.sha256(manifest).hexdigest()}.parquet"
    folder.put(name, manifest)
    total = tally(receipts)
    entry = LogEntry(
        version=parent + 1,
        commit_id=uuid.uuid4().hex,
        parent=parent,
        kind="snapshot",
        manifest=name,
        rows=total.embedded.total(),
        quarantined=total.quarantined.total(),
        fingerprint=fingerprint,
        source_digest=source_digest,
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=installed(_RECORDED),
    )
    return _append(folder, entry)


def _demand_files(folder: Folder, receipts: Sequence[Receipt]) -> None:
    """Look for every file where readers will: a worker may have written to a disk of its own."""
    files = [file for r in receipts for file in (r.data, r.quarantine) if file is not None]
    prefixes = {file.path.rpartition("/")[0] for file in files}
    there = {
        f"{prefix}/{name}": size
        for prefix in prefixes
        for name, size in folder.sizes(prefix).items()
    }
    for file in files:
        if there.get(file.path) != file.size:
            raise RunError(
                f"{folder.uri}/{file.path} was written and is not there; on a cluster output.uri "
                "must be an object store, or a disk that all nodes share"
            )


def _append(folder: Folder, entry: LogEntry) -> LogEntry:
    try:
        folder.create(entry_name(entry.version), json.dumps(asdict(entry), indent=1).encode())
    except OSError:
        # the reply may be lost after the write: only what is there now tells
        try:
            there = read_entry(folder, entry.version)
        except FileNotFoundError:
            there = None
        if there is None:
            raise
        if there.commit_id == entry.commit_id:
            return entry
        if (there.source_digest, there.fingerprint) == (entry.source_digest, entry.fingerprint):
            return there
        raise CommitConflict(
            f"{folder.uri!r}: another driver committed version {entry.version} meanwhile; run the "
            "same command again"
        ) from None
    return entry


def _create_format(folder: Folder, schema: pa.Schema, fingerprint: str) -> None:
    described = {
        "format_version": FORMAT_VERSION,
        "dataset_id": uuid.uuid4().hex,
        "fingerprint": fingerprint,
        "schema": schema.serialize().to_pybytes().hex(),
        "schema_text": {field.name: str(field.type) for field in schema},
    }
    try:
        folder.create(FORMAT, json.dumps(described, indent=1).encode())
    except FileExistsError:
        demand_fit(folder, schema, [fingerprint])


def _manifest_bytes(receipts: Sequence[Receipt]) -> bytes:
    rows = [
        {"kind": kind, "unit": receipt.unit, "adapter": receipt.adapter, **asdict(file)}
        for receipt in receipts
        for kind, file in ((DATA, receipt.data), (QUARANTINE, receipt.quarantine))
        if file is not None
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()
