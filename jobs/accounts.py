"""The account that every run leaves: how long what took, on what, and what became of it."""

import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from pipeline.credentials import redact
from pipeline.errors import NightjarError
from pipeline.folder import Folder
from pipeline.log import newest_entry
from pipeline.patience import FIRST_PATIENCE
from pipeline.report import RunReport
from pipeline.runs import Ending, Run, put_begun, put_ended, run_name
from pipeline.software import RECORDED, installed
from pipeline.spec import JobSpec
from pipeline.stages.told import Progress

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(kw_only=True)
class Account:
    """What is known of a run while it goes on."""

    command: str
    """That was typed."""
    price: float | None
    """Of a device for an hour."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What the run led to, once it has."""
    ending: Ending = Ending.FAILED
    """Likewise."""
    reasons: tuple[str, ...] = ()
    """Why it failed, or why its snapshot was refused."""
    _began: datetime = field(default_factory=lambda: datetime.now(UTC))
    _started: float = field(default_factory=time.monotonic)
    _phases: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _stages: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _workers: dict[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is done within is a phase of the run."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] += time.monotonic() - started

    def timed(self, name: str, call: Callable[P, T]) -> Callable[P, T]:
        """The same call, as a phase of the run."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.phase(name):
                return call(*args, **kwargs)

        return timed

    def add(self, progress: Progress) -> None:
        """Count what workers have told when they ended."""
        for stage, seconds in progress.seconds.items():
            self._stages[stage] += seconds
        for device, count in progress.workers.items():
            self._workers[device] = max(count, self._workers.get(device, 0))

    def close(self, report: RunReport, **more: object) -> None:
        """The run has led to something."""
        self.report = asdict(report) | more
        if report.up_to_date:
            self.ending = Ending.UP_TO_DATE
        else:
            self.ending = Ending.PUBLISHED if report.published else Ending.CANDIDATE

    def run(self, name: str, job: str) -> Run:
        """As it is kept."""
        hours = sum(self._workers.values()) * self._phases["embed"] / 3600
        tokens = self.report.get("tokens", 0) - self.report.get("resumed_tokens", 0)
        return Run(
            name=name,
            command=self.command,
            job=job,
            host=socket.gethostname(),
            versions=installed(RECORDED),
            ending=self.ending,
            reasons=self.reasons,
            seconds=self.seconds,
            phases=dict(self._phases),
            stages=dict(self._stages),
            workers=self._workers,
            tokens_per_second=tokens / self._phases["embed"] if self._phases["embed"] else 0.0,
            device_hours=hours,
            cost=None if self.price is None else hours * self.price,
            report=dict(self.report),
        )

    @contextmanager
    def planning(self, spec: JobSpec) -> Iterator[None]:
        """The phase before the dataset is known to be fit to be written to.

        A run that ends here leaves its account all the same where there is a dataset: that a source
        has vanished is what a trend is to show.
        """
        try:
            with self.phase("plan"):
                yield
        except NightjarError as error:
            self.reasons = (redact(str(error)),)
            folder = Folder(spec.output.uri, FIRST_PATIENCE)
            with suppress(NightjarError, OSError):
                if newest_entry(folder) is not None:
                    put_ended(folder, self.run(run_name(self._began), spec.name))
            raise

    @contextmanager
    def kept(self, folder: Folder, job: str) -> Iterator[None]:
        """Leave the account beside a dataset, whatever becomes of what is done within.

        Args:
            folder: the dataset's root, which can be written to.
            job: the spec's name.
        """
        name = run_name(self._began)
        put_begun(folder, replace(self.run(name, job), ending=Ending.UNKNOWN))
        try:
            yield
        except KeyboardInterrupt:
            self.ending, self.reasons = Ending.INTERRUPTED, ("it was asked to end",)
            self._leave(folder, self.run(name, job))
            raise
        except BaseException as error:
            self.reasons = (redact(str(error) or type(error).__name__),)
            self._leave(folder, self.run(name, job))
            raise
        self._leave(folder, self.run(name, job))

    def _leave(self, folder: Folder, run: Run) -> None:
        try:
            put_ended(folder, run)
        except OSError as error:
            # what was committed is committed: its account is not worth a failure
            print(f"the account of this run could not be kept: {error}", file=sys.stderr)
