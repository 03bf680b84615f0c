"""A committed dataset as a reader sees it: whole snapshots, and nothing of a run in progress."""

import dataclasses
import hashlib
import io
import json
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from pipeline.commit import Snapshot, commit
from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.log import (
    FORMAT_VERSION,
    MANIFESTS,
    LogEntry,
    content_name,
    entry_name,
    list_versions,
    newest_entry,
    read_format,
)
from pipeline.manifest import MANIFEST_SCHEMA, Manifest, parts_of
from pipeline.schema import embedded_schema, output_schema, vector_fields
from pipeline.stages.sink import Sink
from pipeline.work import Receipt
from tests.simulation.dataset import collect_all

MADE_BY = hashlib.sha256(b"made by").hexdigest()
KEPT = (pa.field("title", pa.string()),)
VECTORS = vector_fields(dim=4, single_dtype="float32", multi_dim=2, multi_dtype="float16")
SCHEMA = output_schema(
    pa.int64(), KEPT, VECTORS, {"fingerprint": MADE_BY, "embedding": str(VECTORS[0].type)}
)


def _items(ids: Sequence[int]) -> pa.Table:
    """Embedded items; a negative id is one that was set aside."""
    bad = [number < 0 for number in ids]
    columns = {
        "row": list(range(len(ids))),
        "locator": [f"shard#row={number}" for number in range(len(ids))],
        "id": list(ids),
        "modality": ["text"] * len(ids),
        "task": ["code.query"] * len(ids),
        "source_hash": [hashlib.sha256(b"%d" % number).digest() for number in ids],
        "kept": [{"title": f"t{number}"} for number in ids],
        "n_tokens": [number % 5 + 1 for number in ids],
        "truncated": [False] * len(ids),
        "embedding": [None if b else [float(n)] * 4 for n, b in zip(ids, bad, strict=True)],
        "multivector": [
            None if b else [[float(n), 1.0]] * (n % 3 + 1) for n, b in zip(ids, bad, strict=True)
        ],
        "reason": ["null_input" if b else None for b in bad],
        "stage": ["prepare" if b else None for b in bad],
        "message": ["neither" if b else None for b in bad],
    }
    schema = embedded_schema(pa.int64(), KEPT, VECTORS)
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in schema}, schema=schema)


def _write(folder: Folder, *units: Sequence[int]) -> list[Receipt]:
    """Data files alone, as a run leaves them before its commit."""
    sink = Sink(folder, SCHEMA, MADE_BY)
    return [sink(_items(ids), uuid.uuid4().hex, "code") for ids in units]


def _publish(folder: Folder, *units: Sequence[int]) -> LogEntry:
    parts = [part for receipt in _write(folder, *units) for part in parts_of("shard", receipt)]
    snapshot = Snapshot(
        manifest=Manifest.of([], parts),
        schema=SCHEMA,
        fingerprint=MADE_BY,
        source_digest=repr(units),
    )
    return commit(folder, snapshot, newest_entry(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "dataset"))


def test_data_files_without_a_log_entry_are_no_dataset(folder: Folder) -> None:
    _write(folder, [1, 2])
    with pytest.raises(OutputError, match=f"{re.escape(repr(folder.uri))} holds no committed"):
        open_dataset(folder.uri)


def test_a_half_finished_run_leaves_the_snapshot_before_it(folder: Folder) -> None:
    _publish(folder, [1, 2])
    _write(folder, [3, 4, 5])
    dataset = open_dataset(folder.uri)
    assert (dataset.version, dataset.count()) == (1, 2)
    assert dataset.to_table()["id"].to_pylist() == [1, 2]


def test_a_place_with_nothing_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no committed dataset"):
        open_dataset(str(tmp_path / "nothing"))


def test_every_version_stays_readable_as_it_was(folder: Folder) -> None:
    _publish(folder, [1, 2])
    opened = open_dataset(folder.uri)
    _publish(folder, [3], [4, 5, -6])
    assert list_versions(folder) == [1, 2]
    assert opened.to_table()["id"].to_pylist() == [1, 2]
    assert open_dataset(folder.uri, 1).to_table()["id"].to_pylist() == [1, 2]
    newest = open_dataset(folder.uri)
    assert (newest.version, newest.count(), newest.entry.quarantined) == (2, 3, 1)
    assert newest.to_table()["id"].to_pylist() == [3, 4, 5]
    with pytest.raises(OutputError, match="has no version 3; it has 1 to 2"):
        open_dataset(folder.uri, 3)


def test_columns_and_filter_choose_what_is_read(folder: Folder) -> None:
    _publish(folder, [1, 2, 3], [4, 5])
    dataset = open_dataset(folder.uri)
    chosen = dataset.to_table(columns=["title", "id"], filter=pc.field("id") > 2)
    assert chosen.column_names == ["title", "id"]
    assert chosen.to_pylist() == [{"title": f"t{n}", "id": n} for n in (3, 4, 5)]
    batches = list(dataset.to_batches(columns=["id"], filter=pc.field("title") == "t4"))
    assert [n for batch in batches for n in batch["id"].to_pylist()] == [4]
    assert dataset.to_table(columns=[]).num_rows == 5


def test_a_whole_read_has_the_schema_and_the_values_that_were_written(folder: Folder) -> None:
    _publish(folder, [1, -2, 3])
    dataset = open_dataset(folder.uri)
    table = dataset.to_table()
    assert table.schema.equals(SCHEMA)
    assert dataset.schema.equals(SCHEMA, check_metadata=True)
    assert table["embedding"].to_pylist() == [[1.0] * 4, [3.0] * 4]
    assert table["multivector"].to_pylist() == [[[1.0, 1.0]] * 2, [[3.0, 1.0]]]
    assert table["multivector"].type == pa.list_(pa.list_(pa.float16(), 2))
    assert pa.Table.from_batches(dataset.to_batches()).equals(table)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 99])
def test_the_head_is_the_first_rows(folder: Folder, rows: int) -> None:
    _publish(folder, [1, 2], [3, 4])
    head = open_dataset(folder.uri).head(rows)
    assert head["id"].to_pylist() == [1, 2, 3, 4][:rows]
    assert head.schema.equals(SCHEMA)


def test_every_file_has_the_bytes_that_the_manifest_tells(folder: Folder) -> None:
    _publish(folder, [1, 2], [3, -4])
    dataset = open_dataset(folder.uri)
    assert [fragment.rows for fragment in dataset.fragments] == [2, 1]
    for fragment in dataset.fragments:
        data = folder.get(fragment.path)
        assert fragment.path.startswith(f"data/{MADE_BY[:8]}/")
        assert hashlib.sha256(data).hexdigest() == fragment.sha256
        assert len(data) == fragment.size
        with pa.ipc.open_file(pa.py_buffer(data)) as file:
            assert file.schema.equals(SCHEMA, check_metadata=True)
            assert file.read_all().equals(dataset.read_fragment(fragment))


def test_a_damaged_data_file_is_not_read(folder: Folder) -> None:
    _publish(folder, [1, 2])
    (fragment,) = (dataset := open_dataset(folder.uri)).fragments
    data = bytearray(folder.get(fragment.path))
    data[len(data) // 2] ^= 1
    folder.put(fragment.path, bytes(data))
    with pytest.raises(OutputError, match=rf"{fragment.path} is damaged"):
        dataset.read_fragment(fragment)


def test_a_damaged_manifest_is_not_read(folder: Folder) -> None:
    entry = _publish(folder, [1, 2])
    data = folder.get(entry.manifest)
    for at in range(0, len(data), 97):
        folder.put(entry.manifest, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(OutputError, match="is damaged: its sha256 is not its name"):
            open_dataset(folder.uri)
    folder.put(entry.manifest, data[:-1])
    with pytest.raises(OutputError, match="is damaged"):
        open_dataset(folder.uri)


@pytest.mark.parametrize("what", ["manifest", "entry"])
def test_a_dataset_that_is_not_whole_is_a_sentence(folder: Folder, what: str) -> None:
    entry = _publish(folder, [1, 2])
    if what == "manifest":
        Path(folder.path(entry.manifest)).unlink()
    else:
        Path(folder.path("log/00000000000000000001.json")).write_text("{")
    with pytest.raises(OutputError):
        open_dataset(folder.uri)


def test_a_log_without_a_format_is_refused(folder: Folder) -> None:
    _publish(folder, [1])
    Path(folder.path("format.json")).unlink()
    with pytest.raises(OutputError, match=r"has a log and no format\.json"):
        open_dataset(folder.uri)


def test_a_dataset_of_a_newer_format_is_refused_with_the_way_out(folder: Folder) -> None:
    _publish(folder, [1])
    described = read_format(folder)
    assert described is not None
    described["format_version"] = FORMAT_VERSION + 1
    folder.put("format.json", json.dumps(described).encode())
    with pytest.raises(OutputError, match=r"format version 2, .* install a newer one"):
        open_dataset(folder.uri)


@pytest.mark.fault("output.damaged")
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"{}", b'{"format_version": "x"}', b"\xff\xfe"],
)
def test_a_damaged_format_is_a_sentence(folder: Folder, content: bytes) -> None:
    _publish(folder, [1])
    folder.put("format.json", content)
    with pytest.raises(OutputError, match=r"format\.json is damaged \(.*put it back"):
        open_dataset(folder.uri)


@pytest.mark.fault("output.damaged")
def test_no_changed_byte_of_a_log_entry_is_taken_for_one(folder: Folder) -> None:
    _publish(folder, [1, -2])
    name = entry_name(1)
    data = folder.get(name)
    for at in range(len(data)):
        folder.put(name, bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]]))
        with pytest.raises(OutputError, match=f"{name} is damaged"):
            open_dataset(folder.uri)
    plain = json.loads(data)
    del plain["sha256"]
    folder.put(name, json.dumps(plain).encode())
    with pytest.raises(OutputError, match=f"{name} is damaged"):
        open_dataset(folder.uri)


def _publish_manifest(folder: Folder, manifest: pa.Table, name: str | None = None) -> None:
    """A next version with that manifest, as if it had been committed."""
    buffer = io.BytesIO()
    pq.write_table(manifest, buffer)
    right = content_name(MANIFESTS, buffer.getvalue(), "parquet")
    folder.put(right, buffer.getvalue())
    newest = newest_entry(folder)
    assert newest is not None
    version = newest.version + 1
    entry = dataclasses.replace(
        newest, version=version, snapshot=version, published=version, manifest=name or right
    )
    folder.put(entry_name(entry.version), entry.to_json().encode())


@pytest.mark.fault("output.path")
@pytest.mark.parametrize(
    ("kind", "path"),
    [("data", "../outside.arrow"), ("data", "data/../../outside.arrow"), ("data", "/etc/passwd"),
     ("data", "quarantine/x.arrow"), ("quarantine", "data/x.arrow"), ("log", "log/x.json"),
     ("data", None)],
)  # fmt: skip
def test_a_manifest_that_names_a_file_elsewhere_is_refused(
    folder: Folder, kind: str, path: str | None
) -> None:
    _publish(folder, [1])
    row = {"kind": kind, "unit": "u", "adapter": "code", "path": path, "size": 1, "rows": 1}
    _publish_manifest(folder, pa.Table.from_pylist([row], MANIFEST_SCHEMA))
    with pytest.raises(OutputError, match="cannot be trusted"):
        open_dataset(folder.uri)


@pytest.mark.fault("output.path")
def test_a_manifest_elsewhere_or_with_other_columns_is_refused(folder: Folder) -> None:
    _publish(folder, [1])
    _publish_manifest(folder, MANIFEST_SCHEMA.empty_table(), "manifests/../../x.parquet")
    with pytest.raises(OutputError, match="is not a plain path below manifests/"):
        open_dataset(folder.uri)
    Path(folder.path(entry_name(2))).unlink()
    _publish_manifest(folder, pa.table({"kind": ["data"]}))
    with pytest.raises(OutputError, match="its columns are not those of a manifest"):
        open_dataset(folder.uri)


@pytest.mark.fault("output.damaged")
@pytest.mark.parametrize("kind", ["data", "quarantine"])
@pytest.mark.parametrize("fate", ["cut", "gone", "flipped"])
def test_a_file_that_cannot_be_read_is_named_by_whoever_reads_it(
    folder: Folder, kind: str, fate: str
) -> None:
    _publish(folder, [1, -2], [3])
    dataset = open_dataset(folder.uri)
    file = next(file for file in dataset.files if file.path.startswith(kind))
    data = folder.get(file.path)
    if fate == "gone":
        folder.delete(file.path)
    else:
        # what Arrow looks for at the end of a file is spoilt by either
        folder.put(file.path, data[: len(data) // 2] if fate == "cut" else data[:-6] + bytes(6))
    cut = f"has {len(data) // 2:,} bytes, not {len(data):,}"
    words = {"cut": cut, "gone": "is gone", "flipped": "or a file after it, cannot be read"}[fate]
    if kind == "quarantine":
        readers = [dataset.quarantine]
    else:
        readers = [lambda: dataset.head(9)]
        if fate != "flipped":
            readers += [dataset.to_table, lambda: list(dataset.to_batches())]
    for reader in readers:
        with pytest.raises(OutputError, match=f"{file.path},.*{words}") as told:
            reader()
        assert "\n" not in str(told.value)


def test_a_mistake_in_what_is_asked_for_is_not_blamed_on_the_files(folder: Folder) -> None:
    _publish(folder, [1])
    with pytest.raises(pa.ArrowInvalid):
        open_dataset(folder.uri).to_table(columns=["absent"])


def test_rows_set_aside_can_be_read_with_their_reasons(folder: Folder) -> None:
    _publish(folder, [1, -2], [3], [-4, -5])
    dataset = open_dataset(folder.uri)
    aside = dataset.quarantine()
    assert aside["id"].to_pylist() == [-2, -4, -5]
    assert set(aside["reason"].to_pylist()) == {"null_input"}
    assert aside["locator"].to_pylist() == ["shard#row=1", "shard#row=0", "shard#row=1"]
    assert dataset.count() == 2


def test_a_dataset_with_nothing_set_aside_has_an_empty_quarantine(folder: Folder) -> None:
    _publish(folder, [1])
    assert open_dataset(folder.uri).quarantine().num_rows == 0


def test_vectors_come_back_as_numpy_without_a_copy(folder: Folder) -> None:
    _publish(folder, list(range(5)))
    column = open_dataset(folder.uri).to_table()["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=True)
    assert np.array_equal(flat.reshape(5, 4), np.arange(5, dtype="f4")[:, None].repeat(4, 1))


@pytest.mark.fault("store.partial_upload")
def test_the_collector_deletes_what_a_killed_writer_left_half_written(folder: Folder) -> None:
    _publish(folder, [1, -2])
    there = {file.path for file in open_dataset(folder.uri).files}
    left = [f"{kind}/{MADE_BY[:8]}/.{uuid.uuid4().hex}.tmp" for kind in ("data", "quarantine")]
    for path in left:
        Path(folder.path(path)).write_bytes(b"half")
    assert list(collect_all(folder).half_written) == left
    assert list_versions(folder) == [1], "nothing was condemned"
    root = Path(folder.path(""))
    files = [path for kind in ("data", "quarantine") for path in (root / kind).glob("*/*")]
    assert {str(path.relative_to(root)) for path in files} == there


@pytest.mark.s3
def test_a_dataset_on_s3_is_committed_and_read_back(bucket: str) -> None:
    folder = Folder(f"{bucket}/embeddings")
    _publish(folder, [1, 2], [3, -4])
    _publish(folder, [5])
    dataset = open_dataset(f"{bucket}/embeddings", version=1)
    assert dataset.to_table(columns=["id"])["id"].to_pylist() == [1, 2, 3]
    assert dataset.head(1)["id"].to_pylist() == [1]
    assert dataset.quarantine().num_rows == 1
    assert open_dataset(f"{bucket}/embeddings").version == 2
