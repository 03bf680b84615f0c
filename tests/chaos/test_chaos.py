"""SIGKILL at random moments, over rounds: nothing is lost, nothing is there twice, nothing wrong.

`pytest tests/chaos/test_chaos.py --rounds 20 -rP` is the long run; it prints what was killed. A
round is drawn from its number alone, so `-k "[7]"` plays the eighth again; only the exact moments
are the machine's.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline import open_dataset
from pipeline.folder import Folder
from pipeline.log import list_versions
from tests.chaos.conftest import Corpus
from tests.chaos.corpus import write_spec
from tests.chaos.leftovers import files_of, garbage_of
from tests.chaos.nodes import Nodes
from tests.chaos.play import Round, Stage, play
from tests.chaos.schedule import Scene, Schedule
from tests.faults.proxy import Proxy, Rule
from tests.simulation.dataset import collect_all

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

_OWN, _SHARED = 0.2, 0.8
"""CPUs of an actor; two of the latter do not fit, so one serves both adapters."""

_UNRECORDED = 16
"""Files that a kill can leave without a record: of eight writing tasks, which fill two CPUs, two
each."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("seed", range(metafunc.config.getoption("--rounds")))


@pytest.mark.fault(
    "compute.worker_killed", "compute.node_lost", "compute.driver_killed", "compute.two_runs"
)
def test_nothing_is_lost_twice_or_wrong_whatever_is_killed(
    seed: int,
    corpus: Corpus,
    nodes: Nodes,
    proxy: Proxy,
    environment: Mapping[str, str],
    tiny_checkpoint: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    schedule = Schedule.draw(seed)
    fails = schedule.scene is Scene.STORE
    output = f"{request.getfixturevalue('bucket')}/out" if fails else str(tmp_path / "out")
    actor_cpus = _SHARED if schedule.shares_pool else _OWN
    spec = write_spec(tmp_path / "spec.yaml", corpus.root, tiny_checkpoint, output, actor_cpus)
    folder, units = Folder(output), corpus.recorded(corpus.oracle.uri)
    stage = Stage(
        nodes=nodes,
        spec=spec,
        environment=environment,
        logs=tmp_path,
        share_done=lambda: corpus.recorded(output) / units,
    )
    proxy.rules = _faults() if fails else []
    played = play(schedule, stage)
    proxy.rules = []
    with _telling(played):
        assert list_versions(folder) == [1], "drivers converge to one commit"
        corpus.demand_right(output)
        orphans = len(garbage_of(folder))
        played.tell(f"{orphans} orphans")
        # of two drivers one loses every unit they share
        lost = len(open_dataset(output).files) if schedule.scene is Scene.RACE else 0
        assert orphans <= played.kills.total() * _UNRECORDED + lost
        _demand_nothing_to_do(spec, folder, capsys)
        collect_all(folder)
        assert garbage_of(folder) == []
        corpus.demand_right(output)
    print(played)


def _faults() -> list[Rule]:
    """A store that is never well, and never gone for long."""
    return [
        Rule(fault="status", probability=0.02),
        Rule(
            fault="status",
            status=409,
            code="ConditionalRequestConflict",
            method="PUT",
            probability=0.02,
        ),
        Rule(fault="drop_before", probability=0.02),
        Rule(fault="drop_after", probability=0.02),
        Rule(fault="truncate", method="GET", probability=0.02),
    ]


@contextmanager
def _telling(played: Round) -> Iterator[None]:
    """A failure says what was killed."""
    try:
        yield
    except AssertionError as error:
        error.add_note(str(played))
        raise


def _demand_nothing_to_do(spec: Path, folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command once more finds the commit, and writes nothing."""
    before = files_of(folder)
    capsys.readouterr()
    assert main(["embed", str(spec), "--address", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["up_to_date"]
    assert files_of(folder) == before
