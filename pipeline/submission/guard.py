"""Guard: is a cluster's address one to which jobs, and a token, may be sent.

Ray's Jobs API runs whatever it is sent, and thousands of open ones on the internet have been taken
over through it (CVE-2023-48022). An address is public when any of those that its name leads to is
reachable from the internet.
"""

import ipaddress
import os
import socket
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import requests

from pipeline.errors import RunError, SpecError

_SECONDS = 10.0


def demand_guarded(url: str, *, insecure: bool) -> None:
    """Refuse what is open to everybody, and to tell everybody a token.

    Args:
        url: of the dashboard.
        insecure: whether the user insists.

    Raises:
        SpecError: it is no URL of a dashboard, or one that must not be used.
        RunError: nobody answers there.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(parts):
        raise SpecError(
            f"--address: {url!r} is not the URL of a cluster's dashboard, such as "
            "http://head:8265 (https:// behind a proxy)"
        )
    if insecure or not _is_public(parts.hostname, parts.port):
        return
    if _is_open(url):
        raise SpecError(
            f"--address: {url} can be reached from the internet and asks for no token: whoever "
            "finds it runs what he likes there; start its head with RAY_AUTH_MODE=token, or reach "
            "it through a tunnel, or insist with --insecure"
        )
    if parts.scheme == "http":
        raise SpecError(
            f"--address: {url} asks for a token, which would go there over the internet in the "
            "clear; use https:// or a tunnel, or insist with --insecure"
        )


def wrong_token() -> str:
    """Why a cluster has refused us, as the end of a sentence that begins with its address."""
    named = "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return f"asks for a token: set RAY_AUTH_MODE=token, and {named}"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "asks for another token than that of RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if path.is_file():
        return f"asks for another token than that in {str(path)!r}"
    return (
        f"cannot be asked: RAY_AUTH_MODE is token, and there is none, in {str(path)!r} either; set "
        f"{named}, or RAY_AUTH_MODE=disabled where none is asked for"
    )


def _has_port(parts: SplitResult) -> bool:
    """Whether its port is one, or is left out."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def _is_public(host: str, port: int | None) -> bool:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RunError(f"no Ray answers at {host!r}: {error}") from error
    return any(ipaddress.ip_address(str(address[4][0])).is_global for address in found)


def _is_open(url: str) -> bool:
    """Whether it lists its jobs for somebody without a token."""
    try:
        answer = requests.get(f"{url}/api/jobs/", timeout=_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise RunError(f"no Ray answers at {url!r}: {error}") from error
    return answer.ok and not answer.is_redirect
