"""One step of a simulated run in a process of its own, with what its driver took.

`python -m benchmarks.simulation.steps STEP SETTING` prints a line of JSON. The highest resident
memory of a process that has measured before says little, so `benchmarks.simulated` starts one for
each step. What is timed as a phase is every call of one function of the project; phases within
each other both count.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import jobs.embed
import jobs.nightly
import pipeline.commit
import pipeline.driver
import pipeline.stages.plan
from benchmarks.memory import highest, resident
from benchmarks.simulation.store import asked, use_directory_store
from benchmarks.simulation.work import Corpus, SimulatedRecipe, job_spec
from jobs.accounts import Account
from jobs.devices import Devices
from pipeline.dataset import open_dataset
from pipeline.records import Records
from pipeline.stages.recipe import Recipe
from pipeline.storage import use_stores

_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Of all steps of a run."""

    corpus: Corpus
    """That is embedded."""
    checkpoint: str
    """Its folder."""
    source: str
    """Folder of the shards."""
    output: str
    """Root of the dataset."""
    address: str
    """Which Ray, or `none`."""
    unit_seconds: float
    """For which a unit is on a device."""

    def job(self) -> Any:
        """The spec."""
        return job_spec(Path(self.checkpoint), Path(self.source), Path(self.output), self.corpus)


@dataclass(kw_only=True)
class Phase:
    """All calls of one function."""

    calls: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    highest: int = 0
    """Bytes of resident memory at the highest so far, when the last call ended."""
    resident: int = 0
    """Bytes of it then."""
    requests: dict[str, int] = field(default_factory=dict)
    """Of the object store, and bytes."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a process took."""

    imported: int
    """Bytes of resident memory when everything was imported."""
    highest: int
    """At the highest."""
    wall: float
    """Seconds, imports left out."""
    cpu: float
    """Seconds of CPU of this process, likewise."""
    requests: dict[str, int]
    """Of this process to the object store, and bytes."""
    phases: dict[str, Phase]
    """By name."""
    found: dict[str, Any]
    """What the step led to."""


def step_apart(step: str, setting: Setting) -> Step:
    """Do a step in a new process."""
    arguments = [step, json.dumps(asdict(setting))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.simulation.steps", *arguments],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return step_of(json.loads(done.stdout.splitlines()[-1]))


def step_of(plain: dict[str, Any]) -> Step:
    """From JSON."""
    phases = {name: Phase(**phase) for name, phase in plain["phases"].items()}
    return Step(**plain | {"phases": phases})


def do_step(step: str, setting: Setting) -> Step:
    """Do a step here."""
    use_directory_store()
    use_stores(())
    imported = highest()
    begun, before = (time.perf_counter(), _cpu()), asked()
    phases: dict[str, Phase] = {}
    with ExitStack() as stack:
        for target, name, label in _PHASES:
            stack.enter_context(_timed(target, name, phases, label))
        found = _STEPS[step](setting)
    return Step(
        imported=imported,
        highest=highest(),
        wall=time.perf_counter() - begun[0],
        cpu=_cpu() - begun[1],
        requests=dict(asked() - before),
        phases=phases,
        found=found,
    )


def _embed(setting: Setting) -> dict[str, Any]:
    """`nightjar embed`, from the check of the spec to the account, with simulated workers."""
    spec = setting.job()
    account = Account(command="embed", price=None)
    with account.planning(spec):
        job = jobs.embed.check(spec)
    simulated = {
        dtype: SimulatedRecipe.made_of(recipe, setting.unit_seconds)
        for dtype, recipe in job.recipes.items()
    }
    job = dataclasses.replace(job, recipes=simulated)
    with account.kept(job.folder, spec.name):
        entry = job.snapshot()
        if entry is not None:
            report = jobs.embed.report_of_nothing(job, entry)
        else:
            outcome = jobs.embed.finish(job, setting.address, account)
            report = jobs.embed.report_of(job, outcome, account.seconds)
        account.close(report)
    return {"rows": report.rows, "units": len(job.plan.units), "up_to_date": report.up_to_date}


def _nightly(setting: Setting) -> dict[str, Any]:
    """`nightjar nightly`, all of it."""
    run = jobs.nightly.nightly(setting.job(), setting.address).run
    return {"rows": run.rows, "up_to_date": run.up_to_date}


def _open(setting: Setting) -> dict[str, Any]:
    """What a reader does before it reads a row."""
    dataset = open_dataset(setting.job().output.uri)
    return {"rows": dataset.count(), "files": len(dataset.files)}


_STEPS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "embed": _embed,
    "nightly": _nightly,
    "open": _open,
}
_PHASES = (
    (jobs.embed, "plan_work", "plan"),
    (pipeline.stages.plan, "_demand_distinct", "plan: duplicates"),
    (Recipe, "of", "recipe"),
    (jobs.embed.CheckedJob, "snapshot", "look for the snapshot"),
    (Devices, "execute", "workers"),
    (Records, "standing", "look up records"),
    (pipeline.driver, "reconcile", "reconcile"),
    (pipeline.driver.Wanted, "snapshot", "make the manifest"),
    (pipeline.driver, "commit", "commit"),
    (jobs.embed, "demand_there", "look for the files"),
)


@contextmanager
def _timed(target: Any, name: str, phases: dict[str, Phase], label: str) -> Iterator[None]:
    original = getattr(target, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        begun, before = (time.perf_counter(), _cpu()), asked()
        try:
            return original(*args, **kwargs)
        finally:
            phase = phases.setdefault(label, Phase())
            phase.calls += 1
            phase.wall += time.perf_counter() - begun[0]
            phase.cpu += _cpu() - begun[1]
            phase.highest, phase.resident = highest(), resident()
            phase.requests = dict(Counter(phase.requests) + (asked() - before))

    with mock.patch.object(target, name, timed):
        yield


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(step: str, setting: str) -> None:
    """Do a step, and print what it took."""
    plain = json.loads(setting)
    given = Setting(**plain | {"corpus": Corpus(**plain["corpus"])})
    print(json.dumps(asdict(do_step(step, given))))


if __name__ == "__main__":
    main(*sys.argv[1:])
