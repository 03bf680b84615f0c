"""How Qdrant is reached, and what its errors mean.

A server is asked by many at once. The engine in the client keeps a directory for one process, and
takes one caller at a time, so all connections of a process to a place share one; it is closed, and
what was in memory gone, with the last of them.
"""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus

from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from pipeline.errors import SpecError, StoreFailed
from pipeline.index.store import Busy, Refused

_OLDEST = (1, 16)
"""The first version with metadata of collections and conditions of upserts: an older one would
overwrite what it is asked to leave alone."""
_TIMEOUT = 60
"""Seconds for an answer; the client's own 5 are less than a request of some megabytes takes."""
_MEMORY = ":memory:"
_ADDRESS = re.compile(r"[\w.-]+:\d+")
_NEVER_TAKEN = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
_LATER = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


@dataclass(kw_only=True)
class Reached:
    """A server, or an engine of this process."""

    client: QdrantClient
    """That asks it."""
    place: str | None
    """Of an engine: its directory, or `:memory:`; None for a server."""
    alone: threading.RLock = field(default_factory=threading.RLock)
    """Held by whoever asks an engine."""
    users: int = 0
    """Connections that share an engine."""

    @contextmanager
    def asked(self) -> Iterator[QdrantClient]:
        """Ask; what comes wrong is told as what may go well later, or never will.

        Raises:
            Busy, Refused: see `VectorStore`.
            StoreFailed: the server does not let us in.
        """
        try:
            with nullcontext() if self.place is None else self.alone:
                yield self.client
        except ResourceExhaustedResponse as error:
            raise Busy(str(error), float(error.retry_after_s)) from error
        except QdrantException as error:
            # the client reads a number of seconds alone, and no date
            raise Busy(str(error)) from error
        except ResponseHandlingException as error:
            # no answer, or half of one
            raise Busy(f"{type(error.source).__name__}: {error.source}") from error
        except UnexpectedResponse as error:
            raise _meant(error) from error
        except json.JSONDecodeError as error:
            raise Busy(f"an answer that is no JSON: {error}") from error
        except ValueError as error:
            if self.place is None:
                raise
            # as engines say what servers say by 400
            raise Refused(str(error)) from error

    def close(self) -> None:
        """Let go of it."""
        if self.place is None:
            self.client.close()
            return
        with _ENGINES_CHANGE:
            self.users -= 1
            if not self.users:
                del _ENGINES[self.place]
                self.client.close()


_ENGINES: dict[str, Reached] = {}
_ENGINES_CHANGE = threading.Lock()


def reach(url: str, secret: str | None) -> Reached:
    """Connect.

    Args:
        url: of a server, a directory, or `:memory:`.
        secret: the API key of a server.

    Raises:
        SpecError: it is no URL of a server.
        StoreFailed: nobody answers there, not to us, or not as we need it.
    """
    if "://" in url:
        return _server(url, secret)
    if _ADDRESS.fullmatch(url):
        raise SpecError(f"store.url: {url!r} is no directory's name; a server is 'http://{url}'")
    place = url if url == _MEMORY else os.path.abspath(url)
    with _ENGINES_CHANGE:
        if place not in _ENGINES:
            _ENGINES[place] = Reached(client=_engine(place), place=place)
        _ENGINES[place].users += 1
        return _ENGINES[place]


def _server(url: str, secret: str | None) -> Reached:
    try:
        # the client would compare versions in a thread of its own, and only warn
        client = QdrantClient(url=url, api_key=secret, timeout=_TIMEOUT, check_compatibility=False)
    except ValueError as error:
        raise SpecError(f"store.url: {url!r} is no URL of a server: {error}") from error
    reached = Reached(client=client, place=None)
    try:
        with reached.asked():
            version = client.info().version
    except (Busy, Refused) as error:
        client.close()
        raise StoreFailed(f"store.url: {url!r} cannot be used: {error}") from error
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST:
        client.close()
        raise StoreFailed(
            f"store.url: Qdrant {version} at {url!r} overwrites whatever it is asked to leave "
            "alone; 1.16 or later is needed"
        )
    return reached


def _engine(place: str) -> QdrantClient:
    if place == _MEMORY:
        return QdrantClient(_MEMORY)
    try:
        # whoever asks it holds its lock, in whatever thread
        return QdrantClient(path=place, force_disable_check_same_thread=True)
    except RuntimeError as error:
        raise StoreFailed(
            f"store.url: the directory {place!r} is in use by another process; Qdrant shares "
            "collections between processes by a server alone"
        ) from error


def _meant(error: UnexpectedResponse) -> Exception:
    """What an answer that is none means; what is not known is an error of ours."""
    told = " ".join(f"{error.status_code} {error.content.decode(errors='replace')}".split())
    if error.status_code in _NEVER_TAKEN:
        return Refused(told)
    if error.status_code in _LATER:
        return Busy(told, _seconds(error))
    if error.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return StoreFailed(f"store.secret: Qdrant does not let us in: {told}")
    return error


def _seconds(error: UnexpectedResponse) -> float | None:
    """Those that a server asks to wait which says 503; None where it does not, or names a date."""
    told = error.headers.get("Retry-After", "")
    return float(told) if told.isdecimal() else None
