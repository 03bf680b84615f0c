"""Real Ray clusters of several raylets on this machine, and the command as a user calls it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import psutil
import ray
import requests

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        **os.environ,
        # test clusters live on the loopback and end with the test
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        # a process that was idle for a second is not worth the seconds of a start
        "RAY_idle_worker_killing_time_threshold_ms": "60000",
        # of the process that Ray Client's server starts for a client; 30 are too few on a machine
        # that runs other tests beside this one
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "120",
    }
)


_COMMANDS = (
    "initialization",
    "setup",
    "head_setup",
    "worker_setup",
    "head_start_ray",
    "worker_start_ray",
)
_LONGEST_END = 20.0
"""Seconds for a cluster to end by itself."""
_PORTS = 4
"""Of a head, beside its agent's."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A `nightjar` command that has ended."""

    code: int
    out: str
    err: str


def nightjar(
    *arguments: str | Path,
    environment: Mapping[str, str] = MappingProxyType({}),
    directory: Path | None = None,
) -> Finished:
    """Run the command as a user does, in a process of its own."""
    return finished("jobs.cli", *arguments, environment=environment, directory=directory)


def finished(
    module: str,
    *arguments: str | Path,
    environment: Mapping[str, str] = MappingProxyType({}),
    directory: Path | None = None,
) -> Finished:
    """Run a module of Python in a process of its own, here or in another working directory."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env={**ENVIRONMENT, **environment},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    return Finished(code=done.returncode, out=done.stdout, err=done.stderr)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running Ray cluster."""

    address: str
    """host:port of its head."""
    client_address: str
    """For Ray Client."""
    dashboard: str
    """URL of its dashboard, with the Jobs API; nobody is there unless it was asked for."""
    metrics: str
    """host:port where the head's agent exports metrics."""
    session: Path
    """Where Ray keeps its files; with a dashboard, also the list of all agents."""
    head: subprocess.Popen[bytes]
    """The head's `ray start`: its raylet and its workers descend from it."""
    add_node: "AddNode"
    """Start one more raylet of one CPU, wait until it has joined, and return its `ray start`."""


class AddNode(Protocol):
    def __call__(self, *, among: Mapping[str, str] = ...) -> subprocess.Popen[bytes]:
        """Args: among, the environment of its processes; that of the head by default."""


@contextmanager
def running_cluster(
    logs: Path,
    *,
    environment: Mapping[str, str] = ENVIRONMENT,
    system_config: Mapping[str, int] = MappingProxyType({}),
    dashboard: bool = False,
    gpus: int = 0,
    autoscaled: int = 0,
) -> Iterator[Cluster]:
    """A head with one CPU; more raylets on request. All end with it.

    Args:
        logs: a directory for what `ray start` says.
        environment: of all its processes, workers included.
        system_config: of Ray's own settings, those to change.
        dashboard: whether there is a Jobs API.
        gpus: of each node, in Ray's books; see `benchmarks/pretended/`.
        autoscaled: how many nodes of one CPU and one GPU Ray's autoscaler may start beside it.
    """
    # Ray's sockets need a short path
    session = tempfile.mkdtemp(prefix="nightjar-ray-", dir="/tmp")
    if autoscaled:
        environment = {**environment, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    port, client_port, metrics_port, dashboard_port = _free_ports(_PORTS)
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, among: Mapping[str, str] = environment) -> subprocess.Popen[bytes]:
        log = logs / f"ray-{len(started)}.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        common = [
            "--num-cpus=1",
            f"--num-gpus={gpus}",
            "--disable-usage-stats",
            "--object-store-memory=200000000",
            # several clusters live here at once, and without its agent one takes no jobs
            f"--dashboard-agent-listen-port={_free_ports(_PORTS + 1)[-1]}",
        ]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*command, *common, *arguments], env=among, stdout=sink, stderr=sink
            )
        started.append(process)
        wait_until(lambda: b"Ray runtime started" in log.read_bytes(), f"Ray start, see {log}")
        return process

    def add_node(*, among: Mapping[str, str] = environment) -> subprocess.Popen[bytes]:
        # as on a machine of its own: in a directory that two nodes share, the second one takes
        # away a job's package under the feet of the first one's workers, and unpacks it again
        folder = tempfile.mkdtemp(prefix="n", dir=session)
        return start(f"--address=127.0.0.1:{port}", f"--temp-dir={folder}", among=among)

    try:
        head = start(
            "--head",
            f"--port={port}",
            f"--ray-client-server-port={client_port}",
            f"--metrics-export-port={metrics_port}",
            f"--include-dashboard={str(dashboard).lower()}",
            f"--dashboard-port={dashboard_port}",
            f"--temp-dir={session}",
            f"--system-config={json.dumps(dict(system_config))}",
            *(_autoscaling(Path(session), port, autoscaled) if autoscaled else ()),
        )
        wait_until(lambda: _listens(client_port), f"a listener on {client_port}")
        if dashboard:
            wait_until(lambda: _answers(dashboard_port), f"a dashboard on {dashboard_port}")
        yield Cluster(
            address=f"127.0.0.1:{port}",
            client_address=f"ray://127.0.0.1:{client_port}",
            dashboard=f"http://127.0.0.1:{dashboard_port}",
            metrics=f"127.0.0.1:{metrics_port}",
            session=Path(session),
            head=head,
            add_node=add_node,
        )
    finally:
        for process in reversed(started):
            process.terminate()
        deadline = time.monotonic() + _LONGEST_END
        while time.monotonic() < deadline and any(process.poll() is None for process in started):
            time.sleep(0.2)
        _end_all_of(session)
        for process in started:
            process.wait(timeout=60)
        shutil.rmtree(session, ignore_errors=True)


def _end_all_of(session: str) -> None:
    """End what is left of a cluster: nodes that the autoscaler has started outlive it, and on a
    busy machine Ray takes its time."""
    for process in psutil.process_iter(["cmdline"]):
        if session in " ".join(process.info["cmdline"] or ()):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _answers(port: int) -> bool:
    """Whether a dashboard lists its jobs, or says that it wants a token for that."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/jobs/", timeout=5)
    except requests.RequestException:
        return False
    return answer.status_code in (200, 401)


def _autoscaling(session: Path, port: int, most: int) -> list[str]:
    """Ray's own autoscaler, with the provider of its tests: it starts raylets on this machine."""
    kinds = {
        "head": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 200_000_000},
            "node_config": {},
            "max_workers": most,
        },
    }
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": f"{ray.util.get_node_ip_address()}:{port}",
        "launch_multiple": True,
        # all nodes have one address, by which it would take them for one that does not answer
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    config = {
        "cluster_name": "test",
        "provider": provider,
        "available_node_types": kinds,
        "head_node_type": "head",
        "max_workers": most,
        "idle_timeout_minutes": 5,
        "upscaling_speed": 100,
        # which Ray demands of every launcher's file
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in _COMMANDS},
    }
    path = session / "autoscaling.json"
    path.write_text(json.dumps(config))
    return [f"--autoscaling-config={path}"]


def _free_ports(count: int) -> list[int]:
    """Ports below those Ray gives to its workers (10002 and up)."""
    candidates = range(6500 + os.getpid() % 1000, 9900)
    return list(islice((port for port in candidates if not _listens(port)), count))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Wait for something, and fail when it takes too long."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:g} s for {what}")
        time.sleep(0.2)
