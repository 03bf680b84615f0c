"""Every run leaves its account beside the dataset."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.folder import Folder
from pipeline.records import Records
from pipeline.runs import RUNS, Ending, expired_runs, list_runs
from tests.jobs import embed, killed_after, write_parquet, write_spec

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def spec(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    return write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))


def _night(spec: Path, *more: str) -> int:
    return main(["nightly", str(spec), "--address", "none", *more])


def _runs(spec: Path) -> list[Any]:
    return list_runs(Folder(str(spec.parent / "out")), 100)


def test_a_run_says_what_it_did_how_long_that_took_on_what_and_what_it_cost(spec: Path) -> None:
    assert _night(spec, "--price", "3.6") == 0
    (run,) = _runs(spec)
    assert (run.command, run.job, run.ending) == ("nightly", "test", Ending.PUBLISHED)
    assert run.report["embedded"] == {"text": 4}
    assert run.report["version"] == 1
    assert run.report["found"]["new"] == 4
    assert set(run.phases) == {"plan", "compare", "link", "embed", "gate"}
    assert set(run.stages) == {"source", "prepare", "embed", "sink"}
    assert 0 < sum(run.phases.values()) <= run.seconds
    assert 0 < sum(run.stages.values()) <= run.phases["embed"]
    assert list(run.workers.values()) == [1]
    assert "CPU with" in next(iter(run.workers))
    assert run.tokens_per_second == pytest.approx(run.report["tokens"] / run.phases["embed"])
    assert run.device_hours == pytest.approx(run.phases["embed"] / 3600)
    assert run.cost == pytest.approx(3.6 * run.device_hours)
    assert run.versions["torch"].startswith("2.")
    assert run.host


def test_runs_are_listed_in_a_table_with_their_endings(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    out = str(spec.parent / "out")
    assert _night(spec, "--set", "source.uri=/nowhere") == 2
    assert main(["runs", out]) == 2, "a mistake leaves nothing where there is no dataset"
    assert "no run has left an account there" in capsys.readouterr().err
    assert embed(spec) == 0
    assert _night(spec) == 0
    write_parquet(spec.parent / "docs.parquet", body=["one", "two", "three", "four"])
    assert _night(spec, "--set", "nightly.publish=manual") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Records, "record", _raise(KeyboardInterrupt()))
        write_parquet(spec.parent / "docs.parquet", body=["1", "2", "3", "4"])
        assert _night(spec) == 1
        patch.setattr(Records, "record", _raise(OSError("the disk is\nfull")))
        assert _night(spec) == 1
    killed_after(0, "nightly", str(spec), "--address", "none")
    assert _night(spec) == 0
    assert [run.ending for run in _runs(spec)] == [
        "published",
        "up to date",
        "candidate",
        "interrupted",
        "failed",
        "running or killed",
        "published",
    ]
    capsys.readouterr()
    assert main(["runs", out, "--last", "3"]) == 0
    told = capsys.readouterr().out
    head, *rows = told.splitlines()
    assert head.split()[0] == "began"
    assert ["failed" in rows[0], "running or killed" in rows[1]] == [True, True]
    assert "nightly  published" in rows[2]
    assert rows[3].endswith("failed: the disk is\\nfull")
    assert main(["runs", out, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert json.loads(lines[0])["report"]["embedded"] == {"text": 4}


def _raise(error: BaseException) -> Callable[..., None]:
    def broken(*_: object) -> None:
        raise error

    return broken


def test_a_refused_snapshot_is_told_with_its_reasons_and_so_is_a_source_that_vanished(
    spec: Path, capsys: Captured
) -> None:
    assert _night(spec) == 0
    limit = ("--set", "nightly.gate.growth=0", "--set", "limits.duplicate_ids=keep")
    shard = spec.parent / "docs.parquet"
    table = pq.read_table(shard)
    pq.write_table(pa.concat_tables([table, table]), shard)
    assert _night(spec, *limit) == 1
    shard.unlink()
    assert _night(spec) == 2
    first, refused, vanished = _runs(spec)
    assert (first.ending, refused.ending, vanished.ending) == ("published", "candidate", "failed")
    assert vanished.reasons[0].startswith("source.uri: no object matches")
    assert refused.reasons[0].startswith("nightly.gate.growth: 0, and it has 8 rows")
    capsys.readouterr()
    assert main(["runs", str(spec.parent / "out")]) == 0
    assert f"candidate: {refused.reasons[0]}" in capsys.readouterr().out


def test_an_account_that_cannot_be_kept_costs_no_snapshot(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("jobs.accounts.put_ended", _raise(OSError("no room")))
    assert _night(spec) == 0
    assert "the account of this run could not be kept: no room" in capsys.readouterr().err
    assert [run.ending for run in _runs(spec)] == [Ending.UNKNOWN]


def test_a_damaged_account_is_named(spec: Path, capsys: Captured) -> None:
    assert _night(spec) == 0
    (account,) = (p for p in (spec.parent / "out" / RUNS).iterdir() if "begun" not in p.name)
    account.write_bytes(account.read_bytes().replace(b"nightly", b"nightlx"))
    assert main(["runs", str(spec.parent / "out")]) == 2
    assert f"{account.name} is damaged" in capsys.readouterr().err


def test_all_but_the_last_accounts_may_go(spec: Path) -> None:
    for _ in range(3):
        assert _night(spec) == 0
    folder = Folder(str(spec.parent / "out"))
    names = sorted(folder.names(RUNS))
    assert len(names) == 6
    assert sorted(expired_runs(folder, 1)) == [f"{RUNS}/{name}" for name in names[:4]]
    assert expired_runs(folder, 3) == []
