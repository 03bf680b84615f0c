"""A run that does not move is ended; one that moves slowly is not."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import Stalled
from pipeline.model.engine import Engine
from pipeline.model.processor import PreparedItem, Processor
from pipeline.stages import watchdog
from pipeline.stages.board import Board
from pipeline.stages.told import Progress
from pipeline.stages.watchdog import pulsing, still_at_work, watched
from pipeline.tasks import Task
from pipeline.work import Tally
from tests.jobs import TEXTS, embed, write_parquet, write_spec


def _nobody(_: object) -> None:
    """Is told, and does nothing."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr(watchdog, "_PULSE_SECONDS", 0.01)


def test_what_a_run_returns_or_raises_is_returned_or_raised() -> None:
    board = Board()
    assert watched(lambda: 7, progress=board.read, watch=_nobody, stall=60, waiting=board.held) == 7
    with pytest.raises(ZeroDivisionError):
        watched(lambda: 1 // 0, progress=board.read, watch=_nobody, stall=60, waiting=board.held)


def test_a_timeout_that_a_run_raises_is_its_own() -> None:
    def run() -> None:
        raise TimeoutError("of the run")

    with pytest.raises(TimeoutError, match="of the run"):
        watched(run, progress=Progress, watch=_nobody, stall=60, waiting=list)


def test_a_run_that_was_given_up_is_known_until_it_has_ended() -> None:
    end = threading.Event()
    with pytest.raises(Stalled):
        watched(end.wait, progress=Progress, watch=_nobody, stall=0.05, waiting=list)
    assert still_at_work()
    end.set()
    deadline = time.monotonic() + 10
    while still_at_work():
        assert time.monotonic() < deadline


@pytest.mark.parametrize("is_given_up", [True, False])
def test_a_process_with_a_run_that_was_given_up_is_left_with_its_code_and_not_torn_down(
    is_given_up: bool,
) -> None:
    script = f"""
import atexit, threading
from contextlib import suppress
from jobs.cli import leave
from pipeline.errors import Stalled
from pipeline.stages.told import Progress
from pipeline.stages.watchdog import watched
atexit.register(print, "torn down")
run = threading.Event().wait if {is_given_up} else int
with suppress(Stalled):
    watched(run, progress=Progress, watch=lambda _: None, stall=0.05, waiting=list)
print("told")
leave(7)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 7
    assert done.stdout.split("\n") == ["told", *([] if is_given_up else ["torn down"]), ""]


def test_an_exit_within_a_run_is_the_answer_and_no_stall() -> None:
    def run() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        watched(run, progress=Progress, watch=_nobody, stall=5, waiting=list)


def test_a_run_is_told_of_while_it_goes_on() -> None:
    told, tallies = threading.Event(), {"code": Tally()}

    def watch(found: object) -> None:
        assert found == Progress(tallies=tallies)
        told.set()

    found = watched(
        lambda: told.wait(5),
        progress=lambda: Progress(tallies=tallies),
        watch=watch,
        stall=60,
        waiting=list,
    )
    assert found, "it goes on until it was told of"


def test_a_process_ends_though_its_run_and_its_count_never_do() -> None:
    program = (
        "import threading\n"
        "from pipeline.stages.told import Progress\n"
        "from pipeline.stages.watchdog import pulsing, watched\n"
        "never = threading.Event()\n"
        "def run():\n"
        "    with pulsing(lambda: 0, print):\n"
        "        never.wait()\n"
        "watched(run, progress=Progress, watch=print, stall=0.1, waiting=list)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert "nothing has moved for 0.1 s" in done.stderr


@pytest.mark.parametrize("progress", [Progress, lambda: None], ids=["no move", "no answer"])
@pytest.mark.fault("compute.no_progress")
def test_a_run_that_does_not_move_is_given_up_and_says_what_waits_for_what(
    progress: object,
) -> None:
    board, never = Board(), threading.Event()
    board.take_up("embed", "unit-1", "process 7 on 10.0.0.1")
    with pytest.raises(Stalled, match=r"limits\.stall: nothing has moved for 0\.2 s") as caught:
        watched(
            never.wait,
            progress=progress,  # type: ignore[arg-type]
            watch=_nobody,
            stall=0.2,
            waiting=board.held,
        )
    never.set()
    notes = "\n".join(caught.value.__notes__)
    assert "embed unit-1: held by process 7 on 10.0.0.1 for" in notes
    assert "ended so far: nothing" in notes
    # where the run hangs
    assert "self._cond.wait" in notes


def test_a_run_that_moves_slowly_goes_on() -> None:
    board = Board()

    def run() -> str:
        for unit in map(str, range(6)):
            board.take_up("embed", unit, "here")
            time.sleep(0.1)
            board.put_down("embed", unit)
        return "done"

    # six times the patience would be over before the end
    found = watched(run, progress=board.read, watch=_nobody, stall=0.4, waiting=board.held)
    assert found == "done"
    assert board.held() == ["no worker holds anything", "ended so far: 6 of embed"]


def test_a_count_that_grows_is_a_move() -> None:
    board, packs = Board(), iter(range(10**6))
    before = board.read().moves
    with pulsing(lambda: next(packs), board.pulse):
        time.sleep(0.2)
    after = board.read().moves
    assert after > before
    time.sleep(0.1)
    assert board.read().moves <= after + 1
    with pulsing(lambda: 0, board.pulse):
        time.sleep(0.1)
    assert board.read().moves <= after + 1


def test_a_unit_that_is_prepared_slowly_is_no_stall(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))
    original = Processor.text

    def slowly(self: Processor, content: str, task: Task) -> PreparedItem:
        time.sleep(0.6 * (content in TEXTS))
        return original(self, content, task)

    monkeypatch.setattr(Processor, "text", slowly)
    # four texts take more than twice as long
    assert embed(spec, "--set", "limits.stall=1") == 0


@pytest.mark.fault("compute.no_progress")
def test_a_command_that_hangs_fails_clearly_and_leaves_nothing_committed(
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))
    never = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "embed", lambda *_, **__: never.wait())
        assert embed(spec, "--set", "limits.stall=1") == 1
    never.set()
    told = capsys.readouterr().err
    assert "limits.stall: nothing has moved for 1 s, so the run was given up" in told
    assert f"held by {tmp_path / 'docs.parquet'} for" in told
    assert "the run itself is here" in told
    assert not (tmp_path / "out" / "log").exists()
    assert embed(spec) == 0
