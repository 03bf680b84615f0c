"""The simulation can see, further: what workers, `settle`, drivers and records could do wrong.

A mutant of a function is its own text with some of it changed, so that it stays what the function
is but for the one thing.
"""

import inspect
from collections.abc import Callable
from types import ModuleType

import pyarrow as pa
import pytest

from pipeline import commit as committing
from pipeline import driver as driving
from pipeline import folder as keeping
from pipeline import records as recording
from pipeline.stages import sink
from pipeline.work import Receipt, WorkUnit
from tests.simulation.dataset import MADE_BY
from tests.simulation.races import COLLECTED, found

_TRIED = "    except OSError as error:\n        try:\n            return folder.get(name)\n"
_NEWEST = "        newest = newest_entry(folder)\n"
_JUDGED = "records.standing(wanted.planned, read_condemned(folder, newest))"


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


def test_a_driver_that_judges_records_before_it_reads_the_newest_entry_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    early = _JUDGED.replace("newest)", "newest_entry(folder))")
    mutant = _mutant(
        driving,
        "drive",
        (f"        standing = {_JUDGED}\n", ""),
        (_NEWEST, f"        standing = {early}\n{_NEWEST}"),
    )
    # the simulated drivers hold the name
    monkeypatch.setattr("tests.simulation.dataset.drive", mutant)
    assert "which is gone" in (found(kinds=COLLECTED) or "")


def test_records_of_another_fingerprint_that_are_taken_for_ones_own_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = WorkUnit.key
    monkeypatch.setattr(WorkUnit, "key", lambda self, fingerprint: honest(self, MADE_BY))
    monkeypatch.setattr(recording, "generation", lambda fingerprint: "same")
    monkeypatch.setattr(sink, "generation", lambda fingerprint: "same")
    assert "wrong vectors" in (found() or "")


def test_a_commit_of_another_fingerprint_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "demand_fit", lambda *arguments: None)
    assert "is made another way" in (found() or "")
