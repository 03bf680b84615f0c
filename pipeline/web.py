"""Images at URLs, fetched from named public hosts and from nowhere else.

A URL is data, and a worker stands inside a network whose other services trust it. Others were
misled in four ways: by a URL that two parsers read differently, by a name that resolves to another
address when it is used than when it was checked, by a redirect, and by addresses that mean an
internal one in another spelling. So a URL is read once, by one strict pattern; its host must be
named in the spec, letter for letter; the name is resolved once, every address must be public, and
the connection goes to one of those very addresses; a redirect is an answer like any other that is
no image. Time and bytes are bounded, proxies and credentials of the environment are not used.

Whatever goes wrong is a fault of the row, never of the run: a host that fails is tried again a few
times, not waited for.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from pipeline.errors import Reason, RowError
from pipeline.patience import PASSING_STATUS

HOST_PATTERN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
"""Names with a dot, in lower case, and no address in any spelling."""

_URL = re.compile(
    r"(?i:(?P<scheme>https?)://(?P<host>[a-z0-9.-]+))(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][^\s\\\x00-\x1f\x7f\ud800-\udfff#]*)?(?:#.*)?",
    re.ASCII | re.DOTALL,
)
_SAFE_IN_TARGET = "".join(map(chr, range(33, 127)))
_PORTS = {"http": 80, "https": 443}

_SECONDS = 20.0
"""For one attempt, from the connection to the last byte."""
_SILENCE = 10.0
"""Seconds without a byte."""
_MOST_BYTES = 64 << 20
_ATTEMPTS, _FIRST_WAIT, _LONGEST_WAIT = 3, 0.5, 4.0

_IPV6 = ipaddress.IPv6Network("2000::/3")
"""All that is public lies in it; mapped, translated and local addresses do not."""
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocol assignments, among them clouds' own services
            "192.88.99.0/24",  # a relay to IPv6
            "168.63.129.16/32",  # Azure's platform, behind an address that looks public
            "2001::/23",  # tunnels
            "2002::/16",  # IPv4 in IPv6
            "3fff::/20",  # documentation
        ),
    )
)


class _Passing(Exception):
    """A fault of a host that may pass."""


def is_url(reference: str) -> bool:
    """Whether a row's reference to its image is an http(s) URL."""
    return re.match("https?:", reference, re.IGNORECASE | re.ASCII) is not None


def fetch(url: str, hosts: Collection[str]) -> bytes:
    """The bytes at a URL.

    Args:
        url: as the row has it.
        hosts: the names that may be fetched from, in lower case.

    Raises:
        RowError: it may not be fetched, or cannot be.
    """
    request = _read(url, hosts)
    retrying = Retrying(
        retry=retry_if_exception_type(_Passing),
        wait=wait_random_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT),
        stop=stop_after_attempt(_ATTEMPTS),
        reraise=True,
    )
    try:
        return retrying(_get, request)
    except _Passing as error:
        raise request.fault(f"{error}, {_ATTEMPTS} times") from error


@dataclass(frozen=True, kw_only=True)
class _Request:
    """A URL that was read."""

    scheme: str
    host: str
    target: str
    """Path and query, in ASCII."""

    def fault(self, what: str, reason: Reason = Reason.IMAGE_NOT_FOUND) -> RowError:
        """What went wrong; the query is not shown, for it may hold a signature."""
        place = f"{self.scheme}://{self.host}{self.target.partition('?')[0]}"
        return RowError(reason, f"{place[:200]}: {what}")


def _read(url: str, hosts: Collection[str]) -> _Request:
    """The parts of a URL.

    Raises:
        RowError: it is not plain, or its host is not one of those that are named.
    """
    parts = _URL.fullmatch(url)
    scheme = parts["scheme"].lower() if parts else ""
    # what is not understood is not shown either: it may hold a password
    if parts is None or (parts["port"] or str(_PORTS[scheme])) != str(_PORTS[scheme]):
        raise RowError(
            Reason.UNSAFE_PATH,
            "the image's URL is not plain: expected http(s)://host/path, without port or user",
        )
    host = parts["host"].lower()
    if host not in hosts:
        raise RowError(
            Reason.UNSAFE_PATH,
            f"the image is at a URL on {host[:253]!r}, which source.image_hosts does not name; "
            "images are fetched only from hosts that are named there",
        )
    target = quote(parts["target"] or "/", safe=_SAFE_IN_TARGET)
    return _Request(scheme=scheme, host=host, target=target if target[0] == "/" else f"/{target}")


def _get(request: _Request) -> bytes:
    """One attempt.

    Raises:
        RowError: the host's answer is not the image.
        _Passing: the host failed in a way that may pass.
    """
    addresses = _resolve(request)
    connection = _Connection(request, addresses)
    limit = threading.Timer(_SECONDS, connection.abort)
    limit.start()
    try:
        return _answer(request, connection)
    except ssl.SSLCertVerificationError as error:
        raise request.fault(f"its certificate is not valid: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        late = f"no whole answer within {_SECONDS:g} seconds"
        what = late if connection.aborted else f"{type(error).__name__}: {error}"
        raise _Passing(what) from error
    finally:
        limit.cancel()
        connection.close()


def _answer(request: _Request, connection: "_Connection") -> bytes:
    headers = {"Host": request.host, "Accept": "image/*", "Accept-Encoding": "identity"}
    connection.request("GET", request.target, headers=headers)
    with connection.getresponse() as response:
        return _content(request, connection, response)


def _content(
    request: _Request, connection: "_Connection", response: http.client.HTTPResponse
) -> bytes:
    if response.status in PASSING_STATUS:
        raise _Passing(f"the answer is {response.status}")
    if 300 <= response.status < 400:
        raise request.fault(f"the answer is {response.status}, and redirects are not followed")
    if response.status != 200:
        raise request.fault(f"the answer is {response.status}")
    if response.getheader("Content-Encoding", "identity") != "identity":
        raise request.fault("the answer is compressed")
    expected = response.length
    content = b"" if (expected or 0) > _MOST_BYTES else response.read(_MOST_BYTES + 1)
    if max(expected or 0, len(content)) > _MOST_BYTES:
        raise request.fault(f"more than {_MOST_BYTES} bytes", Reason.IMAGE_TOO_LARGE)
    if connection.aborted or (expected is not None and len(content) < expected):
        raise ConnectionError("the answer was cut")
    return content


def _resolve(request: _Request) -> list[str]:
    """The addresses of the host, all of them public.

    Raises:
        RowError: there is none, or one is not public.
        _Passing: nobody answered.
    """
    port = _PORTS[request.scheme]
    try:
        found = socket.getaddrinfo(request.host, port, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise request.fault("there is no such host") from error
        raise _Passing(f"the host cannot be resolved: {error.strerror}") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not all(map(is_public, addresses)):
        # the address is not shown: it would tell of the network inside
        raise request.fault("the host's address is not public", Reason.UNSAFE_PATH)
    return addresses


def is_public(address: str) -> bool:
    """Whether an address, as the resolver spells it, is one that anybody may reach."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a zone, for one
        return False
    if not found.is_global or found.is_multicast:
        return False
    if found.version == 6 and (found not in _IPV6 or "%" in address):
        return False
    return not any(found in network for network in _NOT_PUBLIC if network.version == found.version)


class _Connection(http.client.HTTPConnection):
    """A connection to one of the addresses that were checked, for the host that was named."""

    def __init__(self, request: _Request, addresses: Sequence[str]) -> None:
        super().__init__(request.host, _PORTS[request.scheme], timeout=_SILENCE)
        self._secure = request.scheme == "https"
        self._addresses = addresses
        self._open: socket.socket | None = None
        self.aborted = False

    def connect(self) -> None:
        """Connect to the first address that answers; for https as the host and no other."""
        self.sock = self._open = self._reached()
        self._demand_time()
        if self._secure:
            self.sock = self._open = _trust().wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self._demand_time()
            self.sock.do_handshake()

    def _reached(self) -> socket.socket:
        failure: OSError | None = None
        for address in self._addresses:
            try:
                self._demand_time()
                return socket.create_connection((address, self.port), self.timeout)
            except OSError as error:
                failure = error
        assert failure is not None
        raise failure

    def _demand_time(self) -> None:
        if self.aborted:
            raise TimeoutError

    def abort(self) -> None:
        """End it from another thread, whatever it waits for."""
        self.aborted = True
        # an answer that ends with the connection takes the socket with it, and is read from it yet
        sock = self._open
        if sock is not None:
            with suppress(OSError):
                # not the shutdown of TLS, which would let what is left through undeciphered
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
