"""A local Ray cluster that several programs connect to in turns.

Its start belongs to nobody, so it is in nobody's time; connecting, starting workers and everything
after it is. Ray's own ending waits for half a minute; here its processes, all of them descendants
of the one that was started, are ended one by one.
"""

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil

_START_SECONDS, _END_SECONDS = 90, 20
_LOUD = ("ray", "ray.data.context", "ray.data.dataset", "ray.data._internal")


@dataclass(frozen=True, kw_only=True)
class Head:
    """A running cluster of one node."""

    address: str
    """host:port, on the loopback."""
    dashboard: str
    """URL of its Jobs API, where one was asked for."""
    process: int
    """Id of the process whose descendants are the cluster."""


@contextmanager
def ray_head(
    cpus: int, object_store: int = 2_000_000_000, *, gpus: int = 0, dashboard: bool = False
) -> Iterator[Head]:
    """Start a cluster of one node, and end it.

    Args:
        cpus: of it, in Ray's books.
        object_store: bytes.
        gpus: likewise; see `benchmarks/pretended/`.
        dashboard: whether there is a Jobs API.
    """
    for name in _LOUD:
        # plans and progress of every execution
        logging.getLogger(name).setLevel(logging.ERROR)
    # on the loopback, for this run alone; workers and programs read it from the environment
    os.environ["RAY_AUTH_MODE"] = "disabled"
    port, client_port, dashboard_port = _free_ports(3)
    with tempfile.TemporaryDirectory(prefix="nightjar-", dir="/tmp") as session:
        command = [
            "--head",
            f"--port={port}",
            f"--ray-client-server-port={client_port}",
            f"--dashboard-port={dashboard_port}",
            f"--include-dashboard={str(dashboard).lower()}",
            f"--temp-dir={session}",
            *_node(cpus, gpus, object_store),
        ]
        with _started(Path(session) / "start.log", command) as process:
            while dashboard and _free(dashboard_port):
                time.sleep(0.2)
            yield Head(
                address=f"127.0.0.1:{port}",
                dashboard=f"http://127.0.0.1:{dashboard_port}",
                process=process.pid,
            )


@contextmanager
def ray_node(head: Head, cpus: int, gpus: int, object_store: int) -> Iterator[None]:
    """Start one more node of a cluster, and end it."""
    with tempfile.TemporaryDirectory(prefix="nightjar-", dir="/tmp") as folder:
        # with a directory of its own, as on another machine: in one that two nodes share, the
        # second takes away a job's package under the feet of the first one's workers
        joining = [f"--address={head.address}", f"--temp-dir={folder}"]
        command = [*joining, *_node(cpus, gpus, object_store)]
        with _started(Path(folder) / "start.log", command):
            yield


def _node(cpus: int, gpus: int, object_store: int) -> list[str]:
    return [
        f"--num-cpus={cpus}",
        f"--num-gpus={gpus}",
        f"--object-store-memory={object_store}",
        "--disable-usage-stats",
    ]


@contextmanager
def _started(log: Path, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        _wait_for(log, process)
        yield process
    finally:
        _end(process)


def _wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while b"Ray runtime started" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Ray did not start: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End exactly the processes that were started here."""
    started = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in started:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(timeout=_END_SECONDS)
    psutil.wait_procs(started, timeout=_END_SECONDS)


def _free_ports(count: int) -> list[int]:
    """Ports below those Ray gives to its workers (10002 and up)."""
    return list(
        islice((port for port in range(6500 + os.getpid() % 1000, 9900) if _free(port)), count)
    )


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
