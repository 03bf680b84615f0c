"""The catalogue of faults says no more than the tests show."""

from pathlib import Path

import pytest

from tests.faults import catalogue
from tests.faults.catalogue import CATALOGUE, SECTIONS, TABLE, shown, table


def test_every_marker_names_a_line_of_the_catalogue() -> None:
    assert set(shown()) <= set(CATALOGUE)
    assert {key.partition(".")[0] for key in CATALOGUE} == set(SECTIONS)


def test_every_line_is_shown_by_a_test_or_says_why_not() -> None:
    unshown = set(CATALOGUE) - set(shown())
    assert unshown == {key for key, fault in CATALOGUE.items() if fault.open is not None}


def test_the_table_is_what_the_markers_say() -> None:
    assert TABLE.read_text() == table(), "run python -m tests.faults.catalogue"


def test_markers_are_found_on_tests_and_on_the_cases_they_are_given_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_it.py").write_text(
        "CASE = pytest.param(1, marks=pytest.mark.fault('c'))\n"
        "CASES = [CASE]\n"
        "@pytest.mark.fault('a', 'b')\n"
        "@pytest.mark.parametrize('x', CASES)\n"
        "def test_one(x): pytest.mark.fault('not a marker of it')\n"
        "@pytest.mark.slow\n"
        "def test_two(): ...\n"
    )
    monkeypatch.setattr(catalogue, "TESTS", tmp_path)
    assert shown() == {key: ["test_it.py::test_one"] for key in "abc"}
