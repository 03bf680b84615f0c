"""The history of runs: every run leaves its account beside the dataset, whatever became of it.

    <root>/runs/<when it began>-<8 digits>.begun.json    create-only: who began what
                <the same>.json                          create-only: the account

A run that was killed leaves only the first. Nothing is decided by either: they are for people.
"""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.sealed import seal, unseal

RUNS = "runs"
_BEGUN, _ENDED = ".begun.json", ".json"
_READ_AT_ONCE = 32
"""They are small, and the wait is all that they cost."""


class Ending(StrEnum):
    """What became of a run."""

    PUBLISHED = "published"
    """There is a snapshot, and readers get it."""
    CANDIDATE = "candidate"
    """There is a snapshot, and readers do not get it yet."""
    UP_TO_DATE = "up to date"
    """The snapshot was there before."""
    FAILED = "failed"
    """Nothing was committed."""
    INTERRUPTED = "interrupted"
    """Somebody ended it; nothing was committed."""
    UNKNOWN = "running or killed"
    """It has begun, and left no account yet."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The account of a run."""

    name: str
    """Of the run: when it began, by its own clock, UTC, and what tells it from others."""
    command: str
    """That was typed: embed, nightly or retry."""
    job: str
    """The spec's name."""
    host: str
    """Where it was typed."""
    versions: dict[str, str]
    """Of the software."""
    ending: Ending = Ending.UNKNOWN
    """What became of it."""
    reasons: tuple[str, ...] = ()
    """Why it failed, or why the gate refused its snapshot."""
    seconds: float = 0.0
    """Of the whole run."""
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds of its phases, one after another: plan, compare, link, embed, gate."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of all workers together, by stage: source, prepare, embed, sink."""
    workers: dict[str, int] = field(default_factory=dict)
    """How many embedded, by device."""
    tokens_per_second: float = 0.0
    """Tokens that were embedded, over the seconds of the phase `embed`."""
    device_hours: float = 0.0
    """Workers that embedded, times the hours of that phase."""
    cost: float | None = None
    """At the price that was given, of a device for an hour; None for none given."""
    report: dict[str, Any] = field(default_factory=dict)
    """What `--json` prints: counts, versions of the snapshot, what the gate measured."""


def run_name(began: datetime) -> str:
    """A name for a run that began then; names sort by time."""
    return f"{began:%Y%m%dT%H%M%S%fZ}-{uuid.uuid4().hex[:8]}"


def put_begun(folder: Folder, run: Run) -> None:
    """Say that a run has begun."""
    folder.create(f"{RUNS}/{run.name}{_BEGUN}", seal(asdict(run)).encode())


def put_ended(folder: Folder, run: Run) -> None:
    """Leave the account of a run."""
    folder.create(f"{RUNS}/{run.name}{_ENDED}", seal(asdict(run), indent=1).encode())


def list_runs(folder: Folder, last: int) -> list[Run]:
    """The accounts of the last runs, oldest first; of one that left none, what it said at first.

    Raises:
        OutputError: an account is damaged.
    """
    # the account of a run replaces what it said at first, which sorts before it
    files = {_run_of(name): name for name in sorted(folder.names(RUNS))}
    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        return list(pool.map(partial(_read, folder), list(files.values())[-last:]))


def expired_runs(folder: Folder, keep: int) -> list[str]:
    """Paths of all accounts but those of the last runs."""
    names = folder.names(RUNS)
    kept = set(sorted(set(map(_run_of, names)))[-keep:])
    return [f"{RUNS}/{name}" for name in sorted(names) if _run_of(name) not in kept]


def _run_of(name: str) -> str:
    """The run whose file has that name."""
    return name.partition(".")[0]


def _read(folder: Folder, name: str) -> Run:
    path = f"{RUNS}/{name}"
    try:
        plain = unseal(folder.get(path))
        fixed = {"ending": Ending(plain["ending"]), "reasons": tuple(plain["reasons"])}
        return Run(**plain | fixed)
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{folder.uri}/{path} is damaged: {error}") from error
