"""Two nights of one spec that begin together: real processes, and one dataset."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from pipeline.dataset import open_dataset
from pipeline.folder import Folder
from pipeline.log import Kind, read_log
from tests.jobs import write_parquet, write_spec

ROOT = Path(__file__).parents[2]

_TOGETHER = """
import pathlib, sys, time
from pipeline.records import Records
original, meeting = Records.record, pathlib.Path(sys.argv[1])
def record(self, receipt, revision):
    (meeting / sys.argv[2]).touch()
    until = time.monotonic() + 60
    while len(list(meeting.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return original(self, receipt, revision)
Records.record = record
from jobs.cli import main
sys.exit(main(sys.argv[3:]))
"""
"""A program that runs the command and waits, before it records the first unit, for another."""


def _two_nights(spec: Path, meeting: Path) -> list[str]:
    """What each of two nights says, both of which have embedded before either records it."""
    meeting.mkdir()
    command = ["nightly", str(spec), "--address", "none"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _TOGETHER, str(meeting), name, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for name in ("one", "other")
    ]
    said = []
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        said.append(out)
    assert len(list(meeting.iterdir())) == 2, "both had something to do"
    return said


def _rows(spec: Path) -> Mapping[tuple[int, str], Any]:
    rows = open_dataset(str(spec.parent / "out")).to_table(["id", "title", "source_hash"])
    found = {(row["id"], row["title"]): row["source_hash"] for row in rows.to_pylist()}
    assert len(found) == rows.num_rows, "nothing is there twice"
    return found


@pytest.mark.slow
@pytest.mark.fault("compute.two_runs")
def test_two_nights_that_begin_together_make_one_snapshot_and_say_what_happened(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_parquet(tmp_path / "a.parquet")
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    folder = Folder(str(tmp_path / "out"))
    texts = ["a", "another owl", "a", "a third"]
    for night in (1, 2):
        said = _two_nights(spec, tmp_path / f"night {night}")
        done = "4 rows embedded (4 text)" if night == 1 else "2 rows embedded (2 text)"
        assert any(done in out for out in said)
        for out in said:
            assert done in out or "another run has committed the same work first: " in out
            assert f"dataset: {folder.uri} (version {night})" in out
        entries = read_log(folder)
        assert [entry.kind for entry in entries] == [Kind.SNAPSHOT] * night
        assert len({entry.source_digest for entry in entries}) == night
        assert len(_rows(spec)) == 4
        assert main(["verify", folder.uri]) == 0
        write_parquet(tmp_path / "a.parquet", body=texts)
    # "a" was there before: of the new texts two were embedded, and two rows linked
    assert len(set(_rows(spec).values())) == 3
