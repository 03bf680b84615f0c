"""Which clusters jobs, and a token, may be sent to."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipeline.errors import RunError, SpecError
from pipeline.submission.guard import demand_guarded, wrong_token

_PUBLIC, _PRIVATE = "8.8.8.8", "10.1.2.3"


@pytest.fixture(params=[200, 401, 302])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A server that answers everybody so, with its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert "Authorization" not in self.headers, "nobody is told the token to find this out"
            self.send_response(request.param)
            self.send_header("Location", "https://login.example.com")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as answering:
        thread = Thread(target=answering.serve_forever)
        thread.start()
        yield request.param, answering.server_port
        answering.shutdown()
        thread.join()


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that `ray.example.com` leads to, besides the one that answers."""
    more: list[str] = []
    original = socket.getaddrinfo

    def getaddrinfo(host: str, port: Any, *arguments: Any, **settings: Any) -> list[Any]:
        if host != "ray.example.com":
            return original(host, port, *arguments, **settings)
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, int(port or 80))) for address in ("127.0.0.1", *more)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return more


def test_what_everybody_on_the_internet_can_use_is_refused_unless_the_user_insists(
    server: tuple[int, int], named: list[str]
) -> None:
    status, port = server
    url = f"http://ray.example.com:{port}"
    demand_guarded(url, insecure=False)
    named.append(_PRIVATE)
    demand_guarded(url, insecure=False)
    named.append(_PUBLIC)
    # one that asks for something would be told the token in the clear
    sentence = "asks for no token" if status == 200 else "over the internet in the clear"
    with pytest.raises(SpecError, match=sentence):
        demand_guarded(url, insecure=False)
    demand_guarded(url, insecure=True)


@pytest.mark.parametrize(
    "url", ["head:8265", "ray://head:10001", "http://", "http://head:0", "http://head:99999", "x"]
)
def test_what_is_no_url_of_a_dashboard_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="is not the URL of a cluster's dashboard, such as http://"):
        demand_guarded(url, insecure=False)


def test_a_name_that_leads_nowhere_is_told_as_such() -> None:
    with pytest.raises(RunError, match=r"no Ray answers at 'nowhere\.invalid'"):
        demand_guarded("http://nowhere.invalid:8265", insecure=False)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or"),
        ({"MODE": "disabled", "TOKEN": "x"}, "asks for a token: set RAY_AUTH_MODE=token"),
        ({"MODE": "token", "TOKEN": "x"}, "another token than that of RAY_AUTH_TOKEN"),
        ({"MODE": "token", "TOKEN_PATH": "there"}, "asks for another token than that in '"),
        (
            {"MODE": "token", "TOKEN_PATH": "away"},
            "RAY_AUTH_MODE is token, and there is none",
        ),
    ],
)
def test_a_token_that_is_refused_is_told_by_its_cause(
    variables: dict[str, str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").write_text("a token")
    for name in ("MODE", "TOKEN", "TOKEN_PATH"):
        monkeypatch.delenv(f"RAY_AUTH_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(
            f"RAY_AUTH_{name}", str(tmp_path / value) if name == "TOKEN_PATH" else value
        )
    assert sentence in wrong_token()
