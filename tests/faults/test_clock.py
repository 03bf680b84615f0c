"""Clocks that are days apart: nothing is decided by one, so nothing comes of it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import time_machine

from pipeline import open_dataset
from pipeline.folder import Folder
from pipeline.log import list_versions, read_entry
from tests.chaos.oracle import demand_equal
from tests.jobs import KILLED, embed, write_parquet, write_spec
from tests.simulation.dataset import collect_all

_DAY = timedelta(days=1)
_SLICED = ("--set", "compute.unit_rows=1")

_AHEAD = """
import datetime, time_machine
time_machine.travel(datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).start()
"""


@contextmanager
def _clock_off_by(much: timedelta) -> Iterator[None]:
    with time_machine.travel(datetime.now(UTC) + much):
        yield


@pytest.mark.fault("compute.clock")
def test_a_run_begun_a_day_ahead_is_finished_a_day_behind(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    source = write_parquet(tmp_path / "docs.parquet")
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    folder = Folder(str(tmp_path / "out"))
    with _clock_off_by(_DAY):
        assert embed(spec, *_SLICED) == 0
    before = set(tmp_path.glob("out/work/*/*"))
    # another night: the shard is another one, and its first run dies half-way
    pq.write_table(pq.read_table(source["uri"]).slice(1), source["uri"])
    _embed_ahead_killed_after(1, spec)
    half = set(tmp_path.glob("out/work/*/*")) - before
    assert len(half) == 1
    with _clock_off_by(-_DAY):
        # what of the run was not committed is garbage to a collection, however young it looks
        assert len(collect_all(folder).files) >= 1
        assert embed(spec, *_SLICED) == 0
    entries = [read_entry(folder, version) for version in list_versions(folder)]
    assert [entry.kind for entry in entries] == ["snapshot", "gc", "snapshot"]
    told = [datetime.fromisoformat(entry.created_at) for entry in entries]
    assert told[0] - told[2] > 1.9 * _DAY, "the newest version says that it is the oldest"
    assert embed(spec, *_SLICED, "--set", f"output.uri={tmp_path / 'oracle'}") == 0
    demand_equal(open_dataset(folder.uri), open_dataset(str(tmp_path / "oracle")))
    assert open_dataset(folder.uri, 1).count() == 4, "the older version stays readable"


@pytest.mark.fault("compute.clock")
def test_a_killed_run_is_resumed_by_one_whose_clock_is_two_days_behind(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))
    _embed_ahead_killed_after(2, spec)
    with _clock_off_by(-_DAY):
        assert embed(spec, *_SLICED) == 0
    assert "2 of 4 rows were done by an earlier run" in capsys.readouterr().err
    assert embed(spec, *_SLICED, "--set", f"output.uri={tmp_path / 'oracle'}") == 0
    found, oracle = (open_dataset(str(tmp_path / name)) for name in ("out", "oracle"))
    demand_equal(found, oracle)


def _embed_ahead_killed_after(units: int, spec: Path) -> None:
    arguments = ["embed", str(spec), "--address", "none", *_SLICED]
    done = subprocess.run(
        [sys.executable, "-c", _AHEAD + KILLED, str(units), *arguments],
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
