"""The head of a cluster, by its Jobs API: submit, list, follow, stop.

Whoever reaches that API runs any command on the cluster, so one that asks for no token and can be
reached from the internet is refused unless the user insists, and no token is sent in the clear over
it. The token itself is Ray's matter: it finds it where RAY_AUTH_MODE and its companions say.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from pipeline.errors import HeadLost, RunError, SpecError
from pipeline.submission.guard import demand_guarded, wrong_token

_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that Ray prefers to the address it is given."""
_LOUD = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers that tell of every upload and connection."""
_LOOK_SECONDS = 1.0
_PATIENCE = 60.0
"""Seconds for which a head that does not answer is asked again while a job is followed."""
_START_SECONDS = 20.0
"""For which a head that refuses a job is asked again."""
_STOP_SECONDS = 60
"""For which a job that is stopped may leave its account before Ray kills it."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class About:
    """What a job is about, as the cluster keeps it; nobody else's jobs say so."""

    command: str = ""
    """Of Nightjar: `embed`, `nightly`, `backfill` or `evaluate`."""
    spec: str = ""
    """The name of its spec."""
    output: str = ""
    """What it writes to."""
    version: str = ""
    """Of the Nightjar that submitted it."""
    digest: str = ""
    """Of all that was sent and is run: two jobs of one digest do the same."""


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job of a cluster, as its head tells of it."""

    id: str
    """By which it is followed and stopped."""
    about: About
    """What it is."""
    entrypoint: str
    """What the cluster runs."""
    status: str
    """`pending`, `running`, `succeeded`, `failed` or `stopped`."""
    began: datetime | None
    """When it was submitted."""
    ended: datetime | None
    """When it ended; None while it has not."""
    exit_code: int | None
    """Of its driver; None when that has none."""
    message: str
    """What Ray says of its status."""

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.ended is not None


class Head:
    """A cluster's Jobs API."""

    def __init__(self, url: str, *, insecure: bool = False) -> None:
        """Connect.

        Args:
            url: `http://host:port` or `https://host:port`, of the dashboard.
            insecure: whether an open cluster on a public address, or a token sent to one in the
                clear, is what the user wants.

        Raises:
            SpecError: it is no such URL, asks for a token that is not there, or is open to all.
            RunError: no Ray answers there.
        """
        self.url = url.rstrip("/")
        demand_guarded(self.url, insecure=insecure)
        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.ERROR)
        with _as_given():
            self._client = self._asked(lambda: JobSubmissionClient(self.url))
        # it has no public name, and what is public is the version of the API
        self.ray_version = str(self._client._server_ray_version)
        """Of the cluster."""

    def submit(self, folder: Path, entrypoint: str, *, id: str, about: About) -> Submitted:
        """Submit a job.

        Args:
            folder: its working directory, of which all is sent.
            entrypoint: the command, for a shell.
            id: of the job.
            about: what it is.
        """
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS)}
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._asked(
                    lambda: self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=id,
                        runtime_env={"working_dir": str(folder), "env_vars": environment},
                        metadata=asdict(about),
                    )
                )
            except RunError:
                if id in {job.id for job in self.jobs()}:
                    # it was taken, and the answer lost
                    return self.job(id)
                # a head that has just begun has no agent yet, and says so as it says all else
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOK_SECONDS)
                continue
            return self.job(id)

    def jobs(self) -> list[Submitted]:
        """The jobs that were submitted to the cluster, oldest first."""
        listed = [job for job in self._asked(self._client.list_jobs) if job.submission_id]
        return [_told(job) for job in sorted(listed, key=lambda job: job.start_time or 0)]

    def job(self, id: str) -> Submitted:
        """One of them.

        Raises:
            SpecError: there is none of that id.
        """
        try:
            return _told(self._asked(lambda: self._client.get_job_info(id)))
        except RunError:
            if id in {job.id for job in self.jobs()}:
                raise
            raise SpecError(
                f"{self.url} knows no job {id!r}; `nightjar jobs --address {self.url}` lists those "
                "it knows"
            ) from None

    def stop(self, id: str) -> Submitted:
        """Stop a job, and wait until it has ended; one that has ended stays as it is.

        Its driver is asked to end, and killed when it takes too long.

        Raises:
            SpecError: there is none of that id.
            RunError: it does not end.
        """
        job = self.job(id)
        if not job.has_ended:
            self._asked(lambda: self._client.stop_job(id))
        deadline = time.monotonic() + 2 * _STOP_SECONDS
        while not (job := self.job(id)).has_ended:
            if time.monotonic() > deadline:
                raise RunError(f"job {id} was asked to stop, and is {job.status} still")
            time.sleep(_LOOK_SECONDS)
        return job

    def said(self, id: str) -> list[str]:
        """What a job has said so far, line by line."""
        self.job(id)
        return str(self._asked(lambda: self._client.get_job_logs(id))).splitlines()

    def follow(self, id: str) -> Iterator[str]:
        """What a job says, line by line as it comes, until it has ended.

        A connection that is lost is made anew; nothing is told twice.

        Raises:
            SpecError: there is none of that id.
            HeadLost: the head has not answered for too long.
        """
        told, last_heard = 0, time.monotonic()
        while True:
            try:
                has_ended = self.job(id).has_ended
                lines = iter(self.said(id)) if has_ended else self._tailed(id)
                for at, line in enumerate(lines):
                    last_heard = time.monotonic()
                    if at >= told:
                        told += 1
                        yield line
                if has_ended:
                    return
                last_heard = time.monotonic()
            except (RunError, RuntimeError, OSError, aiohttp.ClientError) as error:
                if time.monotonic() - last_heard > _PATIENCE:
                    raise HeadLost(
                        f"{self.url} has not answered for {_PATIENCE:g} s; a job ends with its "
                        "cluster, and submitted again it goes on from what was done"
                    ) from error
            time.sleep(_LOOK_SECONDS)

    def _tailed(self, id: str) -> Iterator[str]:
        """Whole lines from the first one, until the job or the connection ends."""
        pieces: AsyncIterator[str] = self._client.tail_job_logs(id)
        begun = ""
        # whose end gives up what is still waited for, before the connection is closed
        with asyncio.Runner() as runner:
            while True:
                piece = runner.get_loop().create_task(_next(pieces))
                while not runner.run(_within(_LOOK_SECONDS, piece)):
                    # Ray tells of an end some seconds later
                    if self.job(id).has_ended:
                        return
                if (said := piece.result()) is None:
                    return
                *lines, begun = (begun + said).split("\n")
                yield from lines

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        """What the head answers.

        Raises:
            SpecError: it asks for a token.
            RunError: it does not answer, or with an error.
        """
        try:
            return ask()
        except AuthenticationError as error:
            raise SpecError(f"--address: {self.url} {wrong_token()}") from error
        except (ConnectionError, requests.RequestException) as error:
            raise RunError(
                f"no Ray answers at {self.url!r}: it has to be the URL of the dashboard of a "
                f"cluster's head, at port 8265 by default ({_first_line(error)})"
            ) from error
        except RuntimeError as error:
            raise RunError(f"{self.url} refuses: {_first_line(error)}") from error


async def _within(seconds: float, piece: asyncio.Task[str | None]) -> bool:
    """Whether something has come; nothing is raised."""
    return bool((await asyncio.wait({piece}, timeout=seconds))[0])


async def _next(pieces: AsyncIterator[str]) -> str | None:
    # a task cannot end with StopAsyncIteration
    return await anext(pieces, None)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _as_given() -> Iterator[None]:
    """Without the variables by which Ray would go elsewhere than it is told."""
    kept = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _told(job: JobDetails) -> Submitted:
    said = job.metadata or {}
    return Submitted(
        id=str(job.submission_id),
        about=About(**{f.name: said[f.name] for f in fields(About) if f.name in said}),
        entrypoint=job.entrypoint,
        status=job.status.value.lower(),
        began=_moment(job.start_time),
        ended=_moment(job.end_time) if job.status.is_terminal() else None,
        exit_code=job.driver_exit_code,
        message=job.message or "",
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
