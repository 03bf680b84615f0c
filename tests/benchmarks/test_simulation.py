"""A simulated run counts what is there: units, objects and requests, by the dataset that it leaves.

At a tiny size and without Ray; the record in `benchmarks/results` is of the same code.
"""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import s3fs

from benchmarks.simulated import objects
from benchmarks.simulation.steps import Setting, do_step
from benchmarks.simulation.store import DirectoryStore, asked, url
from benchmarks.simulation.work import Corpus, write_shards
from pipeline import storage
from pipeline.dataset import open_dataset

_UNITS = 3 * 4 * 3
"""Shards, row groups of each, units of each."""


@pytest.fixture
def setting(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[Setting]:
    """Of a tiny run; what `s3://` means is put back afterwards."""
    corpus = Corpus(rows=6000, shards=3, group_rows=500, unit_rows=200, duplicate_ids="refuse")
    write_shards(tmp_path / "source", corpus)
    storage._filesystem.cache_clear()
    yield Setting(
        corpus=corpus,
        checkpoint=str(tiny_checkpoint),
        source=str(tmp_path / "source"),
        output=str(tmp_path / "output"),
        address="none",
        unit_seconds=0.0,
    )
    fsspec.register_implementation("s3", s3fs.S3FileSystem, clobber=True)
    storage._filesystem.cache_clear()


def test_a_simulated_run_counts_what_is_there(setting: Setting) -> None:
    step = do_step("embed", setting)
    assert step.found == {"rows": 6000, "units": _UNITS, "up_to_date": False}
    dataset = open_dataset(setting.job().output.uri)
    assert (dataset.count(), len(dataset.files)) == (6000, _UNITS)
    there = objects(Path(setting.output))
    assert there["data"]["objects"] == there["work"]["objects"] == _UNITS
    phases = step.phases
    # a file and a record; each record read once; format, manifest and entry
    assert phases["workers"].requests["PUT"] == 2 * _UNITS
    assert phases["look up records"].requests["GET"] == _UNITS
    assert phases["commit"].requests["PUT"] == 3
    # the probe of put-if-absent is tried twice
    assert step.requests["PUT"] == 1 + sum(folder["objects"] for folder in there.values())
    assert step.imported <= phases["plan"].highest <= step.highest


def test_to_steps_after_the_first_nothing_has_changed(setting: Setting) -> None:
    do_step("embed", setting)
    for name in ("embed", "nightly"):
        step = do_step(name, setting)
        assert step.found["up_to_date"]
        assert "workers" not in step.phases
        # no shard is opened, and no record looked at: what planning remembers, entries, manifest
        assert step.requests["GET"] < 3 + 10
    assert do_step("open", setting).found == {"rows": 6000, "files": _UNITS}


def test_the_store_in_a_directory_has_one_winner_and_counts(tmp_path: Path) -> None:
    store, at = DirectoryStore(skip_instance_cache=True), url(tmp_path / "one")
    before = asked()
    store.pipe_file(at, b"first", mode="create")
    with pytest.raises(FileExistsError):
        store.pipe_file(at, b"second", mode="create")
    assert (store.cat_file(at), store.cat_file(at, 1, 3)) == (b"first", b"ir")
    for number in range(1001):
        (tmp_path / f"{number}.more").touch()
    assert len(store.ls(url(tmp_path))) == 1002
    assert asked() - before == {"PUT": 2, "GET": 2, "LIST": 2, "sent": 11, "received": 7}
