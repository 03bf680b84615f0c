"""The simulation can see: each of these breaks the protocol in one place, and is found."""

from collections.abc import Mapping, Sequence

import pytest

from pipeline import driver as driving
from pipeline import garbage
from pipeline.log import newest_entry
from pipeline.stages import sink
from pipeline.work import Receipt, WorkUnit
from tests.simulation.races import COLLECTED, found, race
from tests.simulation.schedule import PEACE
from tests.simulation.store import Store


def test_the_protocol_as_it_is_passes() -> None:
    for seed in range(20):
        race(seed, odds=PEACE)


@pytest.mark.fault("store.no_condition")
def test_a_store_that_ignores_the_condition_is_found() -> None:
    assert "has changed" in (found(lambda: Store(conditional=False)) or "")


def test_a_collection_without_a_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_condemn", lambda *arguments: None)
    assert "which is gone" in (found() or "")


def test_a_driver_that_ignores_what_is_condemned_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "read_condemned", lambda folder, entry: frozenset())
    assert "which is gone" in (found(kinds=COLLECTED) or "")


def test_a_driver_that_claims_a_version_it_has_not_judged_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = driving.commit

    def late(folder: object, **settings: object) -> object:
        return honest(folder, **settings | {"parent": newest_entry(folder)})  # type: ignore[arg-type]

    monkeypatch.setattr(driving, "commit", late)
    assert "which is gone" in (found(kinds=COLLECTED) or "")


def test_data_files_with_one_name_for_all_attempts_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Always:
        hex = "0" * 32

    monkeypatch.setattr(sink.uuid, "uuid4", Always)
    assert found() is not None


def test_a_driver_that_does_not_count_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def trusting(
        units: Sequence[WorkUnit], receipts: Mapping[str, Receipt], fingerprint: str
    ) -> list[Receipt]:
        return list(receipts.values())[1:]

    monkeypatch.setattr(driving, "reconcile", trusting)
    assert "holds" in (found() or "")
