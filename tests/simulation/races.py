"""Random races, each decided by one seed."""

import copy
from collections.abc import Callable, Sequence
from random import Random

from pipeline.driver import Outcome
from pipeline.errors import NightjarError
from tests.simulation.dataset import (
    Watcher,
    collector,
    driver,
    orphaned_worker,
    publisher,
    retrier,
    sparing_collector,
    stranger,
    tagger,
)
from tests.simulation.schedule import PEACE, Killed, Odds, Process, Schedule, StoreFailure
from tests.simulation.store import SimulatedFolder, Store

SOURCES = ((0, 1), (1, 2), (0, 2))
"""Three nights of one corpus."""

_MOST = 600
"""Seeds with which a broken protocol is tried."""

_UNTIL_COMMIT = 14
"""Steps of a driver from a look at the log to a commit."""

_BASED = 0.7
"""How often there is a version when the race begins."""


KINDS = (
    *("driver",) * 4,
    *("retrier",) * 2,
    *("worker",) * 2,
    *("collector",) * 2,
    *("sparing collector", "publisher", "tagger", "stranger"),
)
"""Who races, and how often one of each."""
COLLECTED = ("driver", "driver", "collector")
"""Who must race for a fault of what is condemned to show soon."""

_WEATHERS = (PEACE, Odds(), Odds(stale=0.3))


def race(
    seed: int,
    *,
    store: Store | None = None,
    odds: Odds | None = None,
    kinds: Sequence[str] = KINDS,
) -> None:
    """Let drivers, orphaned workers, strangers and collectors race, then run one driver in peace.

    Raises:
        AssertionError: a guarantee is broken; the message holds the seed and every step.
    """
    random = Random(seed)
    store = store or Store()
    watcher = Watcher(store, SOURCES)
    steps: list[str] = []
    try:
        if random.random() < _BASED:
            Schedule(store, 0, PEACE, watcher.check).run({"first": driver(random.choice(SOURCES))})
        for _ in range(random.randint(1, 2)):
            weather = odds or random.choice(_WEATHERS)
            schedule = Schedule(store, random.getrandbits(64), weather, watcher.check)
            schedule.steps = steps
            _demand_known_ends(schedule.run(_programs(random, kinds)), watcher)
        _settle_down(store, watcher, random, steps)
    except AssertionError as broken:
        told = "\n".join(steps[-60:])
        raise AssertionError(f"seed {seed}: {broken}\n{told}") from broken


def found(make: Callable[[], Store] = Store, *, kinds: Sequence[str] = KINDS) -> str | None:
    """What the simulation has to say of a broken protocol, the seed first; None for nothing."""
    for seed in range(_MOST):
        try:
            race(seed, store=make(), kinds=kinds)
        except AssertionError as broken:
            return str(broken)
    return None


def overtaken(after: int) -> str | None:
    """What is found when a collector commits after so many steps of a driver; None for nothing.

    The driver finds its work done, by another that was cut off, and the collector condemns that.
    """
    store = Store()
    watcher = Watcher(store, SOURCES)
    before = Schedule(store, 0, PEACE, watcher.check)
    before.run({"first": driver(SOURCES[0])})
    before.run({"cut off": orphaned_worker(SOURCES[1])})
    twin = copy.deepcopy(store)
    alone = Schedule(twin, 0, PEACE, lambda: None)
    alone.run({"collector": collector()})
    commits = next(n for n, step in enumerate(alone.steps) if " create log/" in step)
    turns = (
        ["collector"] * commits + ["driver"] * after + ["collector"] + ["driver"] * _UNTIL_COMMIT
    )
    schedule = Schedule(store, 0, PEACE, watcher.check)
    try:
        schedule.run({"collector": collector(), "driver": driver(SOURCES[1])}, turns=turns)
    except AssertionError as broken:
        return str(broken)
    return None


def _programs(
    random: Random, kinds: Sequence[str]
) -> dict[str, Callable[[SimulatedFolder], object]]:
    made: dict[str, Callable[[SimulatedFolder], object]] = {}
    for number in range(random.randint(2, 5)):
        source = random.choice(SOURCES)
        kind, version = random.choice(kinds), random.randint(1, 3)
        made[f"{kind} {number} of {source}"] = {
            "driver": lambda s=source: driver(s),
            "retrier": lambda s=source: retrier(s),
            "worker": lambda s=source: orphaned_worker(s),
            "stranger": lambda s=source: stranger(s),
            "collector": lambda s=source: collector(),
            "sparing collector": lambda s=source: sparing_collector(),
            "publisher": lambda v=version: publisher(v),
            "tagger": lambda v=version: tagger(v),
        }[kind]()
    return made


def _demand_known_ends(processes: dict[str, Process], watcher: Watcher) -> None:
    for process in processes.values():
        if isinstance(process.result, Outcome):
            watcher.acknowledged(process.result)
        elif process.error is not None:
            known = (Killed, StoreFailure, FileNotFoundError, NightjarError)
            assert isinstance(process.error, known), f"{process.name} raised {process.error!r}"
            # of what is created once a failure says nothing: what is there does
            unread = isinstance(process.error, StoreFailure) and process.waits_for[0] == "create"
            assert not unread, f"{process.name} did not look what its last step led to"


def _settle_down(store: Store, watcher: Watcher, random: Random, steps: list[str]) -> None:
    """After everything, one more run gets what it wants, and a second finds it done."""
    source = random.choice(SOURCES)
    for run in range(2):
        schedule = Schedule(store, 0, PEACE, watcher.check)
        schedule.steps = steps
        before = len(steps)
        last = driver(source, made_by=watcher.made_by())
        process = schedule.run({f"last {run}": last})[f"last {run}"]
        assert process.error is None, f"the run in peace raised {process.error!r}"
        assert isinstance(process.result, Outcome)
        watcher.acknowledged(process.result)
        watcher.check_version(process.result.entry.snapshot)
        wrote = [step for step in steps[before:] if " put " in step or " create " in step]
        assert run == 0 or not wrote, f"a run of finished work wrote: {wrote}"
