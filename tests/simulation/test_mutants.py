"""The simulation can see: each of these breaks the protocol in one place, and is found.

A mutant of a function is its own text with some of it changed, so that it stays what the function
is but for the one thing.
"""

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType

import pyarrow as pa
import pytest

from pipeline import commit as committing
from pipeline import driver as driving
from pipeline import folder as keeping
from pipeline import fragments, garbage, published
from pipeline import records as recording
from pipeline.commit import Snapshot
from pipeline.folder import Folder
from pipeline.log import newest_entry
from pipeline.stages import sink
from pipeline.verdict import Verdict
from pipeline.work import Receipt, WorkUnit
from tests.simulation.dataset import MADE_BY
from tests.simulation.races import COLLECTED, found, overtaken, race
from tests.simulation.schedule import PEACE
from tests.simulation.store import Store

_TRIED = "    except OSError as error:\n        try:\n            return folder.get(name)\n"
_NEWEST = "        newest = newest_entry(folder)\n"
_STEPS_TO_JUDGE = 8
_JUDGED = "            void = read_void(folder, newest)\n"


def _mutant(module: ModuleType, name: str, *changes: tuple[str, str]) -> Callable[..., object]:
    """A function of a module with parts of its text changed."""
    text = inspect.getsource(getattr(module, name))
    for old, new in changes:
        assert text.count(old) == 1, f"{name} is another by now: {old!r} is not in it once"
        text = text.replace(old, new)
    made: dict[str, Callable[..., object]] = {}
    exec(text, module.__dict__, made)
    return made[name]


def _settle_so(patch: pytest.MonkeyPatch, change: str) -> None:
    """Have all who settle a name do it the changed way."""
    mutant = _mutant(keeping, "settle", (_TRIED, change))
    for module in (recording, committing):
        patch.setattr(module, "settle", mutant)


def _loses(told: str | None) -> bool:
    """Whether what was told is that a version names what is, or may at any moment be, deleted."""
    return any(word in (told or "") for word in ("which is gone", "is condemned", "is missing"))


def test_the_protocol_as_it_is_passes() -> None:
    assert {overtaken(after) for after in range(_STEPS_TO_JUDGE)} == {None}
    for seed in range(20):
        race(seed, odds=PEACE)


@pytest.mark.fault("store.no_condition")
def test_a_store_that_ignores_the_condition_is_found() -> None:
    drivers = ("driver",)
    assert "has changed" in (found(lambda: Store(conditional=False), kinds=drivers) or "")


def test_a_collection_without_a_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_condemn", lambda *arguments: None)
    assert _loses(found())


def test_a_driver_that_ignores_what_is_condemned_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "read_void", lambda folder, entry: frozenset())
    assert _loses(found(kinds=COLLECTED))


def test_a_driver_that_claims_a_version_it_has_not_judged_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = driving.commit

    def late(folder: Folder, snapshot: Snapshot, parent: object, verdict: Verdict) -> object:
        return honest(folder, snapshot, newest_entry(folder), verdict)

    monkeypatch.setattr(driving, "commit", late)
    assert _loses(found(kinds=COLLECTED))


def test_data_files_with_one_name_for_all_attempts_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Always:
        hex = "0" * 32

    monkeypatch.setattr(fragments.uuid, "uuid4", Always)
    assert found() is not None


def test_a_driver_that_does_not_count_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def trusting(units: Mapping[str, WorkUnit], receipts: Mapping[str, Receipt]) -> list[Receipt]:
        return list(receipts.values())[1:]

    monkeypatch.setattr(driving, "reconcile", trusting)
    assert "holds" in (found() or "")


def test_a_record_that_is_there_before_its_files_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = sink.Sink.__call__

    class Later(list[tuple[str, bytes]]):
        def put(self, name: str, data: bytes) -> None:
            self.append((name, data))

    def hasty(self: sink.Sink, items: pa.Table, unit: str, adapter: str) -> Receipt:
        folder, later = self._folder, Later()
        self._folder = later  # type: ignore[assignment]
        receipt = honest(self, items, unit, adapter)
        self._folder = folder
        for name, data in later:
            folder.put(name, data)
        return receipt

    monkeypatch.setattr(sink.Sink, "__call__", hasty)
    assert "is there before data/" in (found() or "")


def test_a_lost_reply_that_is_taken_for_a_failure_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _settle_so(monkeypatch, _TRIED.replace("OSError", "FileExistsError"))
    assert "did not look what its last step led to" in (found() or "")


@pytest.mark.parametrize("error", ["OSError", "FileExistsError"])
def test_a_failure_that_is_taken_for_success_is_found(
    monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    blind = f"return data if isinstance(error, {error}) else folder.get(name)"
    _settle_so(monkeypatch, _TRIED.replace("return folder.get(name)", blind))
    assert found() is not None


def test_a_driver_that_judges_by_what_was_condemned_before_the_newest_entry_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early = _JUDGED.strip().replace("newest)", "newest_entry(folder))")
    mutant = _mutant(driving, "drive", (_JUDGED, ""), (_NEWEST, f"        {early}\n{_NEWEST}"))
    # the simulated drivers hold the name
    monkeypatch.setattr("tests.simulation.dataset.drive", mutant)
    # a window of three steps, which chance finds once in 500 races
    assert any(_loses(overtaken(after)) for after in range(_STEPS_TO_JUDGE))


def test_records_of_another_fingerprint_that_are_taken_for_ones_own_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = WorkUnit.key
    monkeypatch.setattr(WorkUnit, "key", lambda self, fingerprint: honest(self, MADE_BY))
    monkeypatch.setattr(recording, "generation", lambda fingerprint: "same")
    monkeypatch.setattr(fragments, "generation", lambda fingerprint: "same")
    assert "wrong vectors" in (found() or "")


def test_a_commit_of_another_fingerprint_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.dataset.demand_fit", lambda *arguments: None)
    assert "is made another way" in (found() or "")


def test_a_collector_that_forgets_the_versions_with_a_name_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutant = _mutant(garbage, "find_garbage", (", *newest.tags.values()", ""))
    monkeypatch.setattr("tests.simulation.dataset.find_garbage", mutant)
    assert found(kinds=(*COLLECTED, "tagger")) is not None


@pytest.mark.long
def test_a_collector_that_deletes_lists_which_may_yet_be_named_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hasty = _mutant(garbage, "_superseded", ("if size <= longest", ""))
    monkeypatch.setattr(garbage, "_superseded", hasty)
    assert _loses(found(kinds=(*COLLECTED, "sparing collector", "tagger")))


@pytest.mark.long
def test_a_version_that_is_published_without_a_look_at_what_is_condemned_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(published, "read_condemned", lambda folder, entry: frozenset())
    monkeypatch.setattr(published, "demand_there", lambda folder, entry: None)
    assert _loses(found(kinds=(*COLLECTED, "publisher")))
