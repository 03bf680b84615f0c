"""Credentials: named in a spec, never written in one, and never told to anybody.

A reference is resolved in the process that needs it, so that no secret travels through Ray, whose
job API and logs show what is sent. From then on this process blots the value out of every log
record it makes; what it prints or sends itself goes through `redact`.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from pipeline.errors import SpecError

REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")
"""`env:NAME` for a variable of the environment, `file:PATH` for the content of a file."""

_BLOT = "***"
_SHORTEST = 4
"""Characters; anything shorter would blot out ordinary words."""
_LONG = 16
"""The same of a part of a secret: the last line of a key says little, and its other lines much."""
_SECRET_NAME = re.compile(r"(key|secret|token|password)$", re.IGNORECASE)
"""What the secret values of a credentials file in JSON are called."""

_known: set[str] = set()
_plain_record = logging.getLogRecordFactory()
_formatter = logging.Formatter()


def resolve(reference: str, key: str = "storage") -> str:
    """The secret that a reference names, without the white space around it.

    Args:
        reference: `env:NAME` or `file:PATH`.
        key: of the spec, that has it.

    Raises:
        SpecError: it is not there, in this process.
    """
    kind, _, name = reference.partition(":")
    try:
        found = os.environ[name] if kind == "env" else Path(name).expanduser().read_text()
    except KeyError:
        raise SpecError(
            f"{key}: {reference} names a variable that the environment of this process has not"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "it is not text"
        raise SpecError(f"{key}: {reference} cannot be read: {what}") from None
    secret = found.strip()
    if not secret:
        raise SpecError(f"{key}: {reference} is empty")
    if len(secret) >= _SHORTEST:
        for part in {secret, *_parts(secret)}:
            _known.update(_spellings(part))
        _guard_logs()
    return secret


def redact(text: str) -> str:
    """The text without any secret that this process has resolved."""
    # the longest first: one may be part of another
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, _BLOT)
    return text


def _parts(secret: str) -> Iterator[str]:
    """What is secret by itself too: values of a JSON object, and the lines of each, if long."""
    values = [secret]
    with suppress(ValueError, RecursionError):
        values += _secret_values(json.loads(secret))
    for value in values:
        yield from (part for part in (value, *map(str.strip, value.splitlines())) if _is_long(part))


def _is_long(part: str) -> bool:
    return len(part) >= _LONG


def _secret_values(node: Any, name: str = "") -> Iterator[str]:
    if isinstance(node, str) and _SECRET_NAME.search(name):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _secret_values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _secret_values(value, name)


def _spellings(text: str) -> set[str]:
    """As it is, and as URLs and forms have it."""
    # "replace": the environment may hold what is not UTF-8
    quoted = {quote(text, safe, errors="replace") for safe in ("", "/")}
    return {text, quote_plus(text, errors="replace"), *quoted}


@cache
def _guard_logs() -> None:
    logging.setLogRecordFactory(_redacted_record)


def _redacted_record(*arguments: Any, **settings: Any) -> logging.LogRecord:
    """A record without secrets; whatever is wrong with a call, it must not fail where it is made.

    Logging tells of a malformed call when it formats the record, and shows what was given.
    """
    record = _plain_record(*arguments, **settings)
    try:
        record.msg, record.args = redact(record.getMessage()), ()
    except Exception:
        record.msg = _redacted(record.msg)
        if isinstance(record.args, Mapping):
            record.args = {name: _redacted(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(map(_redacted, record.args))
    if record.exc_info:
        with suppress(Exception):
            # a formatter would format the exception itself, and takes this text if it is there
            record.exc_text = redact(_formatter.formatException(record.exc_info))
    return record


def _redacted(value: Any) -> Any:
    """The value itself, unless it would show a secret."""
    if isinstance(value, str):
        return redact(value)
    with suppress(Exception):
        shown = repr(value)
        if redact(shown) != shown:
            return redact(shown)
    return value
