"""Hosts that are not there, or never come to an end, cost a row no more than its time."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import web
from pipeline.errors import RowError
from pipeline.web import fetch

HOST = "kiosk.test"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(web, "_LONGEST_WAIT", 0.001)


def _refused(url: str) -> str:
    with pytest.raises(RowError) as refused:
        fetch(url, [HOST])
    return str(refused.value)


@pytest.mark.parametrize(
    ("error", "sentence", "times"),
    [
        (socket.EAI_NONAME, "there is no such host", 1),
        (socket.EAI_AGAIN, "the host cannot be resolved: no answer, 3 times", 3),
    ],
)
def test_a_name_that_leads_nowhere_is_asked_for_again_only_if_nobody_answered(
    monkeypatch: pytest.MonkeyPatch, error: int, sentence: str, times: int
) -> None:
    asked: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(error, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert _refused(f"https://{HOST}/a.png") == f"https://{HOST}/a.png: {sentence}"
    assert asked == [HOST] * times


def test_addresses_that_do_not_answer_share_the_time_of_one_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def resolve(*_: Any, **__: Any) -> Any:
        return [(0, 0, 0, "", (f"8.8.8.{number}", 0)) for number in range(50)]

    def connect(address: tuple[str, int], *_: Any) -> socket.socket:
        tried.append(address[0])
        time.sleep(0.1)
        raise TimeoutError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(web, "_SECONDS", 0.25)
    monkeypatch.setattr(web, "_ATTEMPTS", 1)
    assert "no whole answer within 0.25 seconds" in _refused(f"https://{HOST}/a.png")
    assert len(tried) < 10


@pytest.fixture
def dripping() -> Iterator[int]:
    """The port of a host that begins a TLS handshake and gives a byte of it now and then."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"\x16\x03\x03\x40\x00\x02")
                while not stopped.wait(0.02):
                    try:
                        connection.sendall(b"\0")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        # longer than an attempt, so that the client is seen to wait for the end
        timer = threading.Timer(8, stopped.set)
        timer.start()
        yield int(server.getsockname()[1])
        timer.cancel()
        stopped.set()
        thread.join()


def test_a_handshake_that_comes_byte_by_byte_is_given_up(
    dripping: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", dripping))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [at])
    monkeypatch.setattr(web, "is_public", lambda _: True)
    monkeypatch.setitem(web._PORTS, "https", dripping)
    monkeypatch.setattr(web, "_SECONDS", 0.3)
    monkeypatch.setattr(web, "_ATTEMPTS", 1)
    began = time.monotonic()
    assert "no whole answer within 0.3 seconds" in _refused(f"https://{HOST}/a.png")
    assert time.monotonic() - began < 5
