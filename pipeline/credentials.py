"""Credentials: named in a spec, never written in one, and never told to anybody.

A reference is resolved in the process that needs it, so that no secret travels through Ray, whose
job API and logs show what is sent. From then on this process blots the value out of every log
record it makes; what it prints or sends itself goes through `redact`.
"""

import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import SpecError

REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")
"""`env:NAME` for a variable of the environment, `file:PATH` for the content of a file."""

_BLOT = "***"
_SHORTEST = 4
"""Characters; anything shorter would blot out ordinary words."""

_known: set[str] = set()
_plain_record = logging.getLogRecordFactory()
_formatter = logging.Formatter()


def resolve(reference: str) -> str:
    """The secret that a reference names, without the white space around it.

    Raises:
        SpecError: it is not there, in this process.
    """
    kind, _, name = reference.partition(":")
    try:
        found = os.environ[name] if kind == "env" else Path(name).expanduser().read_text()
    except KeyError:
        raise SpecError(
            f"storage: {reference} names a variable that the environment of this process has not"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "it is not text"
        raise SpecError(f"storage: {reference} cannot be read: {what}") from None
    secret = found.strip()
    if not secret:
        raise SpecError(f"storage: {reference} is empty")
    if len(secret) >= _SHORTEST:
        _known.add(secret)
        _guard_logs()
    return secret


def redact(text: str) -> str:
    """The text without any secret that this process has resolved."""
    # the longest first: one may be part of another
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, _BLOT)
    return text


@cache
def _guard_logs() -> None:
    logging.setLogRecordFactory(_redacted_record)


def _redacted_record(*arguments: Any, **settings: Any) -> logging.LogRecord:
    record = _plain_record(*arguments, **settings)
    record.msg, record.args = redact(record.getMessage()), ()
    if record.exc_info:
        # a formatter would format the exception itself, and takes this text if it is there
        record.exc_text = redact(_formatter.formatException(record.exc_info))
    return record
