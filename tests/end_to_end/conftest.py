"""The small corpus, its vectors computed in one process, and real Ray clusters of several nodes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import pytest

from jobs.cli import main
from pipeline import open_dataset
from pipeline.dataset import Dataset
from tests.end_to_end.small_corpus import write_corpus, write_spec

ENVIRONMENT = {
    **os.environ,
    # test clusters live on the loopback and end with the test
    "RAY_AUTH_MODE": "disabled",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A `nightjar` command that has ended."""

    code: int
    out: str
    err: str


def nightjar(
    *arguments: str | Path, environment: Mapping[str, str] = MappingProxyType({})
) -> Finished:
    """Run the command as a user does, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    return Finished(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small corpus."""
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root)
    return root


@pytest.fixture
def spec(tmp_path: Path, corpus: Path, tiny_checkpoint: Path) -> Path:
    """A spec over the small corpus; its output is `out` beside it."""
    return write_spec(tmp_path / "spec.yaml", corpus, tiny_checkpoint, tmp_path / "out")


@pytest.fixture(scope="session")
def expected(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, tiny_checkpoint: Path
) -> Dataset:
    """The small corpus embedded without Ray."""
    root = tmp_path_factory.mktemp("expected")
    path = write_spec(root / "spec.yaml", corpus, tiny_checkpoint, root / "out")
    assert main(["embed", str(path), "--address", "none"]) == 0
    return open_dataset(str(root / "out"))


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running Ray cluster."""

    address: str
    """host:port of its head."""
    client_address: str
    """For Ray Client."""
    add_node: Callable[[], None]
    """Start one more raylet of one CPU, and wait until it has joined."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head with one CPU; more raylets on request."""
    # Ray's sockets need a short path
    session = Path("/tmp") / f"nightjar-ray-{os.getpid()}"
    port, client_port = _free_ports(2)
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> None:
        log = tmp_path_factory.getbasetemp() / f"ray-{len(started)}.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        common = ["--num-cpus=1", "--disable-usage-stats", "--object-store-memory=200000000"]
        with log.open("wb") as sink:
            started.append(
                subprocess.Popen(
                    [*command, *common, *arguments], env=ENVIRONMENT, stdout=sink, stderr=sink
                )
            )
        _wait_until(lambda: b"Ray runtime started" in log.read_bytes(), f"Ray start, see {log}")

    start(
        "--head",
        f"--port={port}",
        f"--ray-client-server-port={client_port}",
        "--include-dashboard=false",
        f"--temp-dir={session}",
    )
    _wait_until(lambda: _listens(client_port), f"a listener on {client_port}")
    yield Cluster(
        address=f"127.0.0.1:{port}",
        client_address=f"ray://127.0.0.1:{client_port}",
        add_node=lambda: start(f"--address=127.0.0.1:{port}"),
    )
    for process in reversed(started):
        process.terminate()
    for process in started:
        process.wait(timeout=60)


def _free_ports(count: int) -> list[int]:
    """Ports below those Ray gives to its workers (10002 and up)."""
    candidates = range(6500 + os.getpid() % 1000, 9900)
    return list(islice((port for port in candidates if not _listens(port)), count))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not happened():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited 90 s for {what}")
        time.sleep(0.2)
