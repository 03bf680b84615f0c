"""Patience with stores: a fault that may pass by itself is tried again, for a while.

The stores' own clients try again for some seconds; a gateway that restarts or a bucket that is
throttled needs minutes. So every call is tried again around them, with full jitter (each wait is
drawn from 0 to a bound that doubles), until a budget of time is spent, not a number of tries.

Whether a fault may pass is told by its class and its HTTP status, never by the words of a message.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_before_delay,
    wait_random_exponential,
)

from pipeline.errors import NightjarError

Answer = TypeVar("Answer")

PATIENCE = 15 * 60.0
"""Seconds for which a store that fails is tried again."""

FIRST_PATIENCE = 20.0
"""The same before a run has done anything that would be lost."""

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 30.0
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Of HTTP, from whichever server: it may have another answer later."""
_CONFLICT = 409
"""Two conditional writes met, and S3 asks to try again."""
_PASSING_ERRNO = frozenset({errno.EBUSY, errno.EAGAIN, errno.EREMOTEIO, errno.ESTALE, errno.EIO})
"""s3fs puts 409, 500 and 503 into the first and third, and codes that it does not know into EIO."""

logger = logging.getLogger(__name__)


def patiently(call: Callable[[], Answer], what: str, seconds: float) -> Answer:
    """The answer of a call to a store, tried again while its faults may pass.

    Args:
        call: may be made again, whatever became of the call before.
        what: is done to which object, for messages.
        seconds: how long; a wait that would end later is not begun.

    Raises:
        OSError: the fault that does not pass, or the last one.
    """

    def told() -> Answer:
        with store_errors(what):
            return call()

    retrying = Retrying(
        retry=retry_if_exception(may_pass),
        wait=wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT),
        stop=stop_before_delay(seconds),
        before_sleep=_tell,
        reraise=True,
    )
    return retrying(told)


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    if not isinstance(error, OSError) or isinstance(
        error, FileNotFoundError | FileExistsError | PermissionError | NotADirectoryError
    ):
        return False
    # the clients wrap one another's errors; from the outside in, since what aiohttp makes of a body
    # that was cut has a status of its own within, of an answer that nobody gave
    for cause in _causes(error):
        status = _http_status(cause)
        if status is not None:
            return status in PASSING_STATUS or status == _CONFLICT
        if isinstance(cause, _broken_ways()):
            return True
    return error.errno in _PASSING_ERRNO


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


@cache
def _broken_ways() -> tuple[type[BaseException], ...]:
    """What the clients that are installed raise when not the store failed, but the way to it."""
    from aiohttp import ClientError
    from botocore.exceptions import HTTPClientError

    found = [ConnectionError, TimeoutError, ClientError, HTTPClientError]
    with suppress(ImportError):
        from azure.core.exceptions import ServiceRequestError, ServiceResponseError

        found += [ServiceRequestError, ServiceResponseError]
    with suppress(ImportError):
        from google.auth.exceptions import TransportError
        from requests import exceptions

        found += [TransportError, exceptions.ConnectionError, exceptions.Timeout]
        found += [exceptions.ChunkedEncodingError]
    return tuple(found)


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Make an OSError of whatever a store's client raises, that says to what it happened.

    Not all clients raise one, and what a store itself says may be two words, or nothing.
    """
    try:
        yield
    except NightjarError:
        raise
    except OSError as error:
        cause = error.__cause__
        if cause is None:
            raise
        words = f"{what}: {cause}"
        told = type(error)(words) if error.errno is None else type(error)(error.errno, words)
        raise told from cause
    except Exception as error:
        raise OSError(f"{what}: {type(error).__name__}: {error}") from error


def _http_status(error: BaseException) -> int | None:
    """Of botocore's errors, and of those whose class names it `status`, `status_code` or `code`."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        names = ("status", "status_code", "code")
        found = next((v for n in names if isinstance(v := getattr(error, n, None), int)), None)
    return found if isinstance(found, int) else None


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    logger.warning("a store failed, try %d: %s", state.attempt_number, error)
