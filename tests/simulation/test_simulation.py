"""Nothing lost, nothing twice, whatever is killed, fails or races."""

from itertools import count

import pytest

from tests.simulation.dataset import Watcher, collector, driver, retrier
from tests.simulation.races import race
from tests.simulation.schedule import PEACE, Schedule
from tests.simulation.store import Store

_PARTS = 8
_FEWEST_STEPS = 2
"""Of a run that finds its work done: list the log, read the newest entry."""


@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.fault(
    "compute.two_runs", "store.lost_reply", "store.partial_upload", "store.stale_listing"
)
def test_the_dataset_is_whole_after_every_step_of_any_race(part: int, schedules: int) -> None:
    for seed in range(part, schedules, _PARTS):
        race(seed)


_SCENARIOS = {
    "first run": ((), {"driver": driver((0, 1, 2))}),
    "changed source": (((0, 1),), {"driver": driver((1, 2))}),
    "no change": (((0, 1),), {"driver": driver((0, 1))}),
    "retry": (((0, 1),), {"retrier": retrier((0, 1))}),
    "collection": (((0, 1), (1, 2)), {"collector": collector()}),
}


@pytest.mark.parametrize("fate", ["kill_before", "kill_after", "fail_before", "fail_after"])
@pytest.mark.parametrize("scenario", _SCENARIOS)
@pytest.mark.fault("compute.driver_killed", "store.partial_upload")
def test_a_run_cut_off_at_any_step_is_finished_by_the_next(scenario: str, fate: str) -> None:
    before, programs = _SCENARIOS[scenario]
    sources = ((0, 1), (1, 2), (0, 1, 2))
    for step in count():
        store = Store()
        watcher = Watcher(store, sources)
        for source in before:
            Schedule(store, 0, PEACE, watcher.check).run({"before": driver(source)})
        schedule = Schedule(store, 0, PEACE, watcher.check)
        schedule.run(programs, {step: fate})
        again = Schedule(store, 0, PEACE, watcher.check).run(programs)
        assert [process.error for process in again.values()] == [None]
        if len(schedule.steps) <= step:
            assert step >= _FEWEST_STEPS
            return


@pytest.mark.fault("compute.two_runs")
def test_two_drivers_of_the_same_work_make_one_commit_at_any_pace() -> None:
    for seed in range(60):
        store = Store()
        watcher = Watcher(store, [(0, 1)])
        programs = {"one": driver((0, 1)), "other": driver((0, 1))}
        ended = Schedule(store, seed, PEACE, watcher.check).run(programs)
        assert [process.error for process in ended.values()] == [None, None], f"seed {seed}"
        assert [name for name in store.objects if name.startswith("log/")] == [
            "log/00000000000000000001.json"
        ], f"seed {seed}"
