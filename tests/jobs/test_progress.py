"""The progress of a run, as it is told and read again."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jobs.progress import Shown, State, read, told
from pipeline.tasks import ADAPTERS

_COUNTS = st.integers(0, 10**12)


@st.composite
def _states(draw: st.DrawFn) -> State:
    planned = draw(st.dictionaries(st.sampled_from([*ADAPTERS]), _COUNTS, min_size=1))
    done = {name: draw(st.integers(0, rows)) for name, rows in planned.items()}
    return State(done=done, planned=planned, tokens=draw(_COUNTS), pace=draw(_COUNTS))


@given(_states())
def test_what_is_told_is_read_again(state: State) -> None:
    assert read(told(state)) == state


@pytest.mark.parametrize(
    "line", ["", "60 rows embedded (11 image, 49 text), 1,058 tokens in 14.3 s", "3 of 4 rows"]
)
def test_any_other_line_is_no_progress(line: str) -> None:
    assert read(line) is None
    assert not Shown().take(line)


def test_the_lines_of_a_run_elsewhere_are_bars_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        "jobs.progress.Console",
        lambda stderr: Console(file=screen, force_terminal=True, width=120, color_system=None),
    )
    state = State(done={"code": 5}, planned={"code": 10, "retrieval": 20}, tokens=700, pace=70)
    with Shown() as shown:
        assert shown.take(told(state))
        shown.say("code: model loaded in 1.0 s on 10.0.0.1 [bold](cuda)")
    drawn = screen.getvalue()
    assert "5/10 rows" in drawn
    assert "5/30 rows" in drawn
    assert "700 tokens, 70/s" in drawn
    assert "10.0.0.1 [bold](cuda)" in drawn
