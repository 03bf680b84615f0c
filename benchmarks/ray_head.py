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
from collections.abc import Iterator
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
    process: int
    """Id of the process whose descendants are the cluster."""


@contextmanager
def ray_head(cpus: int, object_store: int = 2_000_000_000) -> Iterator[Head]:
    """Start a cluster with that many CPUs and bytes of object store, and end it."""
    for name in _LOUD:
        # plans and progress of every execution
        logging.getLogger(name).setLevel(logging.ERROR)
    # on the loopback, for this run alone; workers and programs read it from the environment
    os.environ["RAY_AUTH_MODE"] = "disabled"
    port, client_port = _free_ports(2)
    with tempfile.TemporaryDirectory(prefix="nightjar-", dir="/tmp") as session:
        log = Path(session) / "start.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                _command(port, client_port, session, cpus, object_store), stdout=sink, stderr=sink
            )
        try:
            wait_until_started(log, process)
            yield Head(address=f"127.0.0.1:{port}", process=process.pid)
        finally:
            end_with_descendants(process)


def _command(port: int, client_port: int, session: str, cpus: int, object_store: int) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        f"--port={port}",
        f"--ray-client-server-port={client_port}",
        f"--num-cpus={cpus}",
        f"--temp-dir={session}",
        f"--object-store-memory={object_store}",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]


def wait_until_started(log: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for `ray start --block`, whose output goes to a file."""
    deadline = time.monotonic() + _START_SECONDS
    while b"Ray runtime started" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Ray did not start: {log.read_text()[-2000:]}")
        time.sleep(0.2)


def end_with_descendants(process: subprocess.Popen[bytes]) -> None:
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
