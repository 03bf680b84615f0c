"""The power is cut at any moment of a write, or of a run: what was promised is on the disk."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline import durable, open_dataset
from pipeline.work import Receipt
from tests.faults.disk import Disk
from tests.jobs import embed, write_parquet, write_spec

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="paths are found by /proc"
)

_SIZES = [0, 5, durable._BLOCK + 5]


@pytest.mark.fault("store.power_cut")
@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("name", ["file", "new/of/a/run/file"])
@pytest.mark.parametrize("write", [durable.put, durable.create])
def test_a_file_that_has_its_name_has_its_bytes_and_both_last_when_the_call_returns(
    tmp_path: Path, write: Callable[[Path, bytes], None], name: str, size: int
) -> None:
    disk, data, looks = Disk(tmp_path), os.urandom(size), []

    def look(call: str, named: Path | None) -> None:
        looks.append(call)
        assert disk.unsynced() == [], call

    with disk.watched(look):
        write(tmp_path / name, data)
    assert {"fsync", "unlink"} < set(looks)
    assert disk.left()[name] == data


@pytest.mark.fault("store.power_cut")
def test_of_a_file_that_is_replaced_the_old_or_the_new_is_left(tmp_path: Path) -> None:
    disk, seen = Disk(tmp_path), []

    def look(call: str, named: Path | None) -> None:
        assert disk.unsynced() == []
        seen.append(disk.left()["file"])

    with disk.watched():
        durable.put(tmp_path / "file", b"old")
    with disk.watched(look):
        durable.put(tmp_path / "file", b"new")
    assert set(seen) == {b"old", b"new"}
    assert seen == sorted(seen, reverse=True), "the old one came back"


@pytest.mark.fault("store.power_cut")
def test_a_directory_that_another_process_has_just_made_is_synced_as_well(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    (tmp_path / "theirs/too").mkdir(parents=True)
    with disk.watched():
        durable.put(tmp_path / "theirs/too/file", b"ours")
    assert disk.left() == {"theirs/too/file": b"ours"}


@pytest.mark.fault("store.power_cut")
def test_a_directory_that_was_removed_is_synced_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    for content in (b"first", b"second"):
        with disk.watched():
            durable.put(tmp_path / "new/file", content)
        assert disk.left() == {"new/file": content}
        (tmp_path / "new/file").unlink()
        (tmp_path / "new").rmdir()
        disk = Disk(tmp_path)


@pytest.mark.fault("store.power_cut")
def test_what_a_run_has_promised_is_left_whenever_the_power_is_cut(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    source = write_parquet(tmp_path / "docs.parquet")
    root = tmp_path / "deep/out"
    spec = write_spec(tmp_path, tiny_checkpoint, source, {"uri": str(root), "single": {"dim": 32}})
    disk, records, commits = Disk(tmp_path), [], []

    def look(call: str, named: Path | None) -> None:
        if named is not None and named.parent.parent == root / "work":
            records.append(named.name)
        if named is not None and named.parent == root / "log":
            # the entry itself may be on the disk before we know of it
            commits.append(disk.left() | {str(named.relative_to(tmp_path)): _next_entry(named)})
        for path in (root / "work").glob("*/*.json"):
            receipt = Receipt.from_json(path.read_bytes())
            assert all(f"deep/out/{file.path}" in disk.left() for file in receipt.files), call

    with disk.watched(look):
        assert embed(spec, "--set", "compute.unit_rows=1") == 0
    assert (len(records), len(commits)) == (4, 1)
    for number, left in enumerate([*commits, disk.left()]):
        rebuilt = tmp_path / f"after-the-cut-{number}"
        for name, data in left.items():
            (rebuilt / name).parent.mkdir(parents=True, exist_ok=True)
            (rebuilt / name).write_bytes(data)
        assert main(["verify", str(rebuilt / "deep/out")]) == 0
        _demand_same(rebuilt / "deep/out", root)


def _next_entry(named: Path) -> bytes:
    """The bytes of an entry that is about to get its name."""
    (temporary,) = named.parent.glob(".*.tmp")
    data = temporary.read_bytes()
    assert json.loads(data)["version"] == 1
    return data


def _demand_same(found: Path, oracle: Path) -> None:
    """Equal, row for row."""
    ours, theirs = (open_dataset(str(root)).to_table().sort_by("id") for root in (found, oracle))
    assert ours.num_rows == 4
    assert ours.equals(theirs)
