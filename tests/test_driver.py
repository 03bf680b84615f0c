"""The driver's rounds: what it refuses, and when it gives up. Races are in `tests/simulation`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import driver as driving
from pipeline.commit import digest
from pipeline.driver import Wanted, drive
from pipeline.errors import CommitConflict, RunError
from pipeline.folder import Folder
from pipeline.log import LogEntry, list_versions
from pipeline.verdict import PUBLISHED
from pipeline.work import Receipt, WorkUnit
from tests.simulation.dataset import MADE_BY, SCHEMA, embed, plan


def _drive(folder: Folder, written_to: Folder, shards: Sequence[int] = (0, 1)) -> driving.Outcome:
    def execute(
        units: Sequence[WorkUnit], revisions: Mapping[str, int], earlier: Mapping[str, Receipt]
    ) -> list[Receipt]:
        return embed(written_to, units, revisions)

    units = plan(shards)
    wanted = Wanted(
        units=units,
        shards=[],
        schema=SCHEMA,
        fingerprint=MADE_BY,
        source_digest=digest(units, MADE_BY),
    )
    return drive(
        folder,
        lambda newest, void: wanted,
        execute=execute,
        accept=lambda *judged: PUBLISHED,
    )


def test_workers_that_write_to_a_disk_of_their_own_are_found_before_the_commit(
    tmp_path: Path,
) -> None:
    here, elsewhere = Folder(str(tmp_path / "here")), Folder(str(tmp_path / "elsewhere"))
    with pytest.raises(RunError, match=r"was written and is not there; on a cluster output\.uri"):
        _drive(here, elsewhere)
    assert not list_versions(here)


def test_a_driver_whose_every_commit_is_lost_to_others_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(folder: Folder, *settings: object) -> None:
        raise CommitConflict("another")

    monkeypatch.setattr(driving, "commit", lost)
    folder = Folder(str(tmp_path / "here"))
    with pytest.raises(CommitConflict, match="others committed 10 times meanwhile"):
        _drive(folder, folder)


def test_only_lost_races_count_when_a_driver_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, units = Folder(str(tmp_path / "here")), plan(range(5))
    lost = iter([True, True, False])

    def sometimes(*commit: Any) -> LogEntry:
        if next(lost):
            raise CommitConflict("another")
        return commit_as_it_is(*commit)

    def one_more(receipts: Mapping[str, Receipt]) -> Sequence[WorkUnit]:
        left = [unit for unit in units if unit.key(MADE_BY) not in receipts]
        return left[: 1 + len(executed)]

    executed: list[int] = []

    def execute(some: Sequence[WorkUnit], *more: Any) -> list[Receipt]:
        executed.append(len(some))
        return embed(folder, some, {})

    commit_as_it_is = driving.commit
    monkeypatch.setattr(driving, "commit", sometimes)
    monkeypatch.setattr(driving, "ROUNDS", 3)
    wanted = Wanted(
        units=units[:1],
        shards=[],
        schema=SCHEMA,
        fingerprint=MADE_BY,
        source_digest=digest(units, MADE_BY),
        rest=one_more,
    )
    outcome = drive(
        folder, lambda newest, void: wanted, execute=execute, accept=lambda *judged: PUBLISHED
    )
    assert outcome.entry.version == 1
    assert len(executed) > 3, "phases of work are no lost races"


def test_the_outcome_tells_what_was_done_before(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "here"))
    embed(folder, plan([1]), {})
    outcome = _drive(folder, folder)
    assert [receipt.unit for receipt in outcome.resumed] == [plan([1])[0].key(MADE_BY)]
    assert outcome.entry.version == 1
    assert outcome.receipts is not None
    assert len(outcome.receipts) == 2
    again = _drive(folder, folder)
    assert again.receipts is None
    assert again.entry == outcome.entry
