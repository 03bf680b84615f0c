"""A proxy before a real object store that makes chosen requests go wrong.

The store behind it is real and so is the client before it; only the way between them fails. Headers
pass unchanged, the Host with them, so that signatures stay valid.
"""

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import ClassVar
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_SLICE = 64


@dataclass(kw_only=True)
class Rule:
    """What happens to which requests."""

    method: str = ".*"
    """A regular expression."""
    path: str = ""
    """A regular expression, searched in path and query."""
    without: str | None = None
    """A header; only requests that lack it are struck."""
    fault: str
    """status, drop_before, drop_after, strip_condition, truncate or slow."""
    status: int = 503
    """Of `status`."""
    code: str = "SlowDown"
    """Of `status`: the error code of S3."""
    skip: int = 0
    """How many of them pass first."""
    times: int | None = None
    """How many are struck; None for all."""
    probability: float = 1.0
    """How often."""
    struck: int = 0
    """How many have been."""

    def strikes(self, method: str, path: str, headers: Message, random: Random) -> bool:
        """Whether this request is one."""
        if not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.without is not None and self.without in headers:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if (self.times is not None and self.struck >= self.times) or (
            random.random() >= self.probability
        ):
            return False
        self.struck += 1
        return True


@dataclass(kw_only=True)
class Proxy:
    """A running proxy."""

    endpoint: str
    """Its URL."""
    rules: list[Rule] = field(default_factory=list)
    """The first that strikes decides."""
    requests: list[str] = field(default_factory=list)
    """METHOD path, of all."""
    sent: int = 0
    """Bytes of the bodies of successful GETs."""


@contextmanager
def proxied(upstream: str, seed: int = 0) -> Iterator[Proxy]:
    """A proxy before the store at a URL."""
    lock, random, behind = threading.Lock(), Random(seed), urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        proxy: ClassVar[Proxy]

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                self.proxy.requests.append(f"{self.command} {self.path}")
                rule = next(
                    (
                        r
                        for r in self.proxy.rules
                        if r.strikes(self.command, self.path, self.headers, random)
                    ),
                    None,
                )
            fault = None if rule is None else rule.fault
            if fault == "drop_before":
                return self._drop()
            if fault == "status":
                assert rule is not None
                return self._refuse(rule)
            status, headers, answer = self._forward(body, strip=fault == "strip_condition")
            if fault == "drop_after":
                return self._drop()
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            length = dict((n.lower(), v) for n, v in headers).get("content-length")
            self.send_header(
                "Content-Length", length if self.command == "HEAD" and length else str(len(answer))
            )
            self.end_headers()
            if self.command == "HEAD":
                return None
            if fault == "truncate":
                self.wfile.write(answer[: len(answer) // 2])
                return self._drop()
            if fault == "slow":
                for start in range(0, len(answer), _SLICE):
                    self.wfile.write(answer[start : start + _SLICE])
                    self.wfile.flush()
                    threading.Event().wait(0.01)
                return None
            self.wfile.write(answer)
            if self.command == "GET" and status < 300:
                with lock:
                    self.proxy.sent += len(answer)
            return None

        def _forward(self, body: bytes, *, strip: bool) -> tuple[int, list[tuple[str, str]], bytes]:
            dropped = ("if-none-match", "if-match") if strip else ()
            connection = http.client.HTTPConnection(behind.hostname or "", behind.port, timeout=60)
            try:
                connection.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() not in dropped:
                        connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        def _refuse(self, rule: Rule) -> None:
            body = (
                f'<?xml version="1.0"?><Error><Code>{rule.code}</Code>'
                f"<Message>{rule.code}</Message></Error>"
            ).encode()
            self.send_response(rule.status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _drop(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.proxy = Proxy(endpoint=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Handler.proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
