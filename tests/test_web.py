"""Images at URLs: whatever a row says, only named hosts at public addresses are spoken to."""

import datetime
import hashlib
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from jobs.cli import main
from pipeline import open_dataset, web
from pipeline.errors import Reason, RowError
from pipeline.web import fetch, is_public, is_url
from tests.jobs import embed, png, write_spec

HOST = "kiosk.test"
HOSTS = [HOST]
Answer = Callable[[BaseHTTPRequestHandler], None]


def _certificate(directory: Path, name: str) -> Path:
    """A self-signed certificate for a name, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


class Server:
    """An HTTP(S) server that answers as it is told, and remembers what it was asked."""

    def __init__(self, certificate: Path | None) -> None:
        self.scheme = "http" if certificate is None else "https"
        self.answer: Answer = _image
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append((self.headers["Host"], self.path))
                self.close_connection = True
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that hangs up is what is tested

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _reply(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Length": str(len(body))} | named).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


_image = _reply(200, png(1))


@pytest.fixture(params=["http", "https"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server that `kiosk.test` leads to, which is trusted and passes for public."""
    certificate = _certificate(tmp_path, HOST)
    found = Server(certificate if request.param == "https" else None)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    web._trust.cache_clear()
    _lead(monkeypatch, found)
    yield found
    found.stop()
    web._trust.cache_clear()


def _lead(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *more: Any, **named: Any) -> Any:
        return real("127.0.0.1" if host == HOST else host, port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setitem(web._PORTS, server.scheme, server.port)
    monkeypatch.setattr(web, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(web, "_LONGEST_WAIT", 0.001)


def _url(server: Server, path: str = "/a.png") -> str:
    return f"{server.scheme}://{HOST}{path}"


def _refused(url: str, hosts: list[str] = HOSTS) -> RowError:
    with pytest.raises(RowError) as refused:
        fetch(url, hosts)
    assert len(str(refused.value)) < 500
    return refused.value


@pytest.mark.fault("security.url")
def test_an_image_is_fetched_from_a_named_host(server: Server) -> None:
    assert fetch(_url(server), HOSTS) == png(1)
    assert fetch(_url(server, "/ä b.png?x=%20&y=/#part").replace(" ", "%20"), HOSTS) == png(1)
    assert fetch(_url(server, "").upper(), HOSTS) == png(1)
    assert server.asked == [
        (HOST, "/a.png"),
        (HOST, "/%C3%A4%20b.png?x=%20&y=/"),
        (HOST, "/"),
    ]


@pytest.mark.fault("security.url")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: Server, status: int) -> None:
    server.answer = _reply(status, Location=_url(server, "/elsewhere"))
    error = _refused(_url(server))
    assert error.reason == Reason.IMAGE_NOT_FOUND
    assert "redirects are not followed" in str(error)
    assert [path for _, path in server.asked] == ["/a.png"]


@pytest.mark.parametrize("status", [204, 206, 401, 403, 404, 410, 501])
def test_an_answer_that_is_no_image_is_the_rows_fault_at_once(server: Server, status: int) -> None:
    server.answer = _reply(status)
    error = _refused(_url(server, "/a.png?signature=secret"))
    assert error.reason == Reason.IMAGE_NOT_FOUND
    assert str(error) == f"{_url(server)}: the answer is {status}"
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_host_that_fails_is_tried_three_times(server: Server, status: int) -> None:
    server.answer = _reply(status)
    assert str(_refused(_url(server))).endswith(f"the answer is {status}, 3 times")
    assert len(server.asked) == 3


def test_a_fault_that_passes_costs_nothing(server: Server) -> None:
    answers = iter([_reply(503), _reply(200, b"short", Content_Length="99"), _image])
    server.answer = lambda handler: next(answers)(handler)
    assert fetch(_url(server), HOSTS) == png(1)


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "not announced"])
def test_more_bytes_than_the_bound_are_not_read(
    server: Server, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(web, "_MOST_BYTES", 1000)
    server.answer = _reply(200, bytes(1000))
    assert len(fetch(_url(server), HOSTS)) == 1000

    def pour(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100_000):
            handler.wfile.write(b"64\r\n" + bytes(100) + b"\r\n")

    server.answer = pour if chunked else _reply(200, bytes(1001))
    error = _refused(_url(server))
    assert error.reason == Reason.IMAGE_TOO_LARGE
    assert str(error).endswith("more than 1000 bytes")


def test_a_compressed_answer_is_not_unpacked(server: Server) -> None:
    server.answer = _reply(200, b"x", Content_Encoding="gzip")
    assert str(_refused(_url(server))).endswith("the answer is compressed")


def _drip_head(handler: BaseHTTPRequestHandler) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 500:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.02)


def _drip_body(handler: BaseHTTPRequestHandler) -> None:
    _reply(200, b"", Content_Length="500")(handler)
    for _ in range(500):
        handler.wfile.write(b"x")
        time.sleep(0.02)


def _drip_to_the_end_of_the_connection(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(500):
        handler.wfile.write(b"x")
        time.sleep(0.02)


def _say_nothing(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(2)


@pytest.mark.parametrize(
    "slow", [_drip_head, _drip_body, _drip_to_the_end_of_the_connection, _say_nothing]
)
def test_an_answer_that_comes_byte_by_byte_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, slow: Answer
) -> None:
    monkeypatch.setattr(web, "_SECONDS", 0.3)
    server.answer = slow
    began = time.monotonic()
    assert str(_refused(_url(server))).endswith("no whole answer within 0.3 seconds, 3 times")
    # one attempt that is not ended takes ten seconds
    assert time.monotonic() - began < 8


def test_a_connection_that_is_cut_is_tried_again(server: Server) -> None:
    server.answer = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    assert str(_refused(_url(server))).endswith(", 3 times")
    assert len(server.asked) == 3


def test_a_certificate_for_another_name_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = _certificate(tmp_path, "other.test")
    server = Server(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    web._trust.cache_clear()
    _lead(monkeypatch, server)
    try:
        assert "its certificate is not valid: Hostname mismatch" in str(_refused(_url(server)))
    finally:
        server.stop()
        web._trust.cache_clear()
    assert server.asked == []


@pytest.mark.fault("security.url")
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_jobs_images_are_fetched_from_the_hosts_that_its_spec_names(
    server: Server, tmp_path: Path, tiny_checkpoint: Path, kind: str
) -> None:
    server.answer = lambda handler: (_image if "well" in handler.path else _reply(404))(handler)
    (tmp_path / "b.png").write_bytes(png(2))
    urls = [
        _url(server, "/well.png"),
        "https://other.test/well.png",
        _url(server, "/gone"),
        "b.png",
    ]
    table = pa.table({"id": range(4), "page": urls})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    source = {"uri": str(path), "format": kind, "id": "id", "image": "page", "task": "code.query"}
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    assert _reasons(spec) == {0: "unsafe_path", 1: "unsafe_path", 2: "unsafe_path"}
    assert server.asked == []
    # a host that is allowed later concerns only what was set aside
    hosts = ("--set", "source.image_hosts=[kiosk.test]")
    assert main(["retry", str(tmp_path / "out"), "--address", "none", *hosts]) == 0
    expected = {1: "unsafe_path", 2: "image_not_found"}
    assert _aside(spec) == expected
    fresh = f"output.uri={tmp_path / 'fresh'}"
    assert embed(spec, *hosts, "--set", fresh) == 0
    again = open_dataset(str(tmp_path / "fresh")).quarantine()
    assert dict(zip(again["id"].to_pylist(), again["reason"].to_pylist(), strict=True)) == expected
    embedded = open_dataset(str(tmp_path / "out")).to_table(columns=["id", "source_hash"])
    embedded = embedded.sort_by("id")
    assert embedded["id"].to_pylist() == [0, 3]
    assert embedded["source_hash"][0].as_py() == hashlib.sha256(b"image\0" + png(1)).digest()


def _reasons(spec: Path) -> dict[int, str]:
    """Which rows a run sets aside, and why."""
    assert embed(spec) == 0
    return _aside(spec)


def _aside(spec: Path) -> dict[int, str]:
    aside = open_dataset(str(spec.parent / "out")).quarantine().to_pylist()
    assert all("source.image_hosts" in r["message"] for r in aside if r["reason"] == "unsafe_path")
    return {row["id"]: row["reason"] for row in aside}


# Addresses --------------------------------------------------------------------------------------

_INTERNAL = [
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200"),
    *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.0.192", "168.63.129.16"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff0e::1", "fec0::1"),
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    *("2002:7f00:1::", "2001:0:7f00:1::", "2001:db8::1", "3fff::1", "2606:4700::1%1"),
    *("0177.0.0.1", "2130706433", "0x7f.1", "localhost", ""),
]


@pytest.mark.fault("security.url")
@pytest.mark.parametrize("address", _INTERNAL)
def test_an_address_that_is_not_public_is_told(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1", "2001:4860:4860::8888"])
def test_an_address_that_is_public_is_told(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_public_in_the_disguise_of_an_ipv6_one(
    address: ipaddress.IPv4Address,
) -> None:
    number = int(address)
    disguises = [
        number,
        (0xFFFF << 32) | number,
        (0x64FF9B << 96) | number,
        (0x2002 << 112) | (number << 80),
        (0x20010000 << 96) | (number ^ 0xFFFFFFFF),
    ]
    assert not any(is_public(str(ipaddress.IPv6Address(found))) for found in disguises)


class Spied:
    """The network, where nothing may be spoken to but what a test allows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] = []
        self.resolved: list[str] = []
        self.connected: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)
        monkeypatch.setattr(socket, "create_connection", self._connect)
        monkeypatch.setattr(web, "_ATTEMPTS", 1)

    def _resolve(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.resolved.append(host)
        return [(0, 0, 0, "", (address, 0)) for address in self.addresses]

    def _connect(self, address: tuple[str, int], *_: Any) -> socket.socket:
        self.connected.append(address[0])
        raise ConnectionRefusedError


@pytest.fixture(scope="module")
def spied() -> Iterator[Spied]:
    """The spied network."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Spied(monkeypatch)


_ADDRESSES = st.lists(
    st.sampled_from([*_INTERNAL, "8.8.8.8", "2606:4700::1"]) | st.ip_addresses().map(str),
    min_size=1,
    max_size=4,
)


@pytest.mark.fault("security.url")
@given(_ADDRESSES)
def test_only_addresses_that_were_checked_are_connected_to_and_only_if_all_are_public(
    spied: Spied, addresses: list[str]
) -> None:
    spied.addresses, spied.resolved, spied.connected = addresses, [], []
    error = _refused(f"https://{HOST}/a.png")
    assert spied.resolved == [HOST], "once: a second answer could be another"
    if all(is_public(address) for address in addresses):
        assert spied.connected == list(dict.fromkeys(addresses))
    else:
        assert spied.connected == []
        assert error.reason == Reason.UNSAFE_PATH
        assert not any(address in str(error) for address in addresses if address)


# Spellings --------------------------------------------------------------------------------------

_HOSTILE = [
    *("http://127.0.0.1/", "http://2130706433/", "http://0177.0.0.1/", "http://0x7f000001/"),
    *("http://127.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/"),
    *("http://localhost/", f"http://{HOST}.evil.test/", f"http://evil.test/{HOST}"),
    *(f"http://user@{HOST}/", f"http://user:secret@{HOST}/", f"http://{HOST}@127.0.0.1/"),
    *(f"http://127.0.0.1\\@{HOST}/", f"http://{HOST}\\@127.0.0.1/", f"http://{HOST}\\.evil.test/"),
    *(f"http://{HOST}#@127.0.0.1/", f"http://{HOST}?@127.0.0.1/", f"http://127.0.0.1#@{HOST}/"),
    *(f"http://{HOST}./", f"http://.{HOST}/", f"http://{HOST}:22/", f"https://{HOST}:80/"),
    *(f"http://{HOST}:/", f"http:///{HOST}/", f"http:{HOST}/", f"http:/{HOST}/", "http://"),
    *(
        "http://kiosk\u3002test/",
        "http://k\u0131osk.test/",
        "http://kio\u017fk.test/",
        "http://\u212aiosk.test/",
        "http://①②⑦.0.0.1/",
    ),
    *(f"http://{HOST}\t/", f"http://{HOST}/a\r\nHost: evil.test", f"http://{HOST}/a b", "HTTP:x"),
    *(f"http://{HOST}\0.evil.test/", f"http://{HOST}/\ud800", "http://%6biosk.test/"),
    *(f" http://{HOST}/", f"ftp://{HOST}/", f"//{HOST}/", "file:///etc/passwd", "gopher://x"),
]


@pytest.mark.fault("security.url")
@pytest.mark.parametrize("url", _HOSTILE)
def test_a_hostile_spelling_reaches_nothing_but_the_named_host(spied: Spied, url: str) -> None:
    spied.addresses, spied.resolved, spied.connected = ["8.8.8.8"], [], []
    error = _refused(url)
    assert "secret" not in str(error)
    assert set(spied.resolved) <= {HOST}
    if spied.resolved:
        assert url in (f"http://{HOST}#@127.0.0.1/", f"http://{HOST}?@127.0.0.1/")
    else:
        assert error.reason == Reason.UNSAFE_PATH


_PIECES = st.sampled_from(
    [
        *("http", "https", "HTTP", "ftp", ":", "//", "/", "\\", "@", "#", "?", "%", ".", "\u3002"),
        *(HOST, HOST.upper(), "127.0.0.1", "[::1]", "0x7f.1", "user", "80", "443", "evil.test"),
        *("\0", "\t", "\r\n", " ", "\u212a", "%00", "\ud800", "xn--", "-", "localhost"),
    ]
)


@pytest.mark.fault("security.url")
@given(st.lists(_PIECES, max_size=12).map("".join) | st.text())
def test_no_spelling_reaches_another_host(spied: Spied, url: str) -> None:
    spied.addresses, spied.resolved, spied.connected = ["8.8.8.8"], [], []
    for tried in (url, f"http://{url}", f"https://{HOST}{url}"):
        _refused(tried)
        assert set(spied.resolved) <= {HOST}
        assert set(spied.connected) <= {"8.8.8.8"}
        _refused(tried, [])
    spied.resolved.clear()
    _refused(url, [])
    assert spied.resolved == [], "without a named host nobody is asked"


@pytest.mark.parametrize("name", ["http://x", "HTTPS://x", "http:x"])
def test_urls_are_known_by_their_scheme(name: str) -> None:
    assert is_url(name)
    assert not is_url(f"a/{name}")
