"""A Ray of several raylets on this machine, each with pretended GPUs.

The GPUs are only told to Ray; what is given one sleeps: see `simulation.work`. A raylet ends
workers that are idle for a second where it has more of them than CPUs, and with one CPU it has:
tasks here take a quarter. Each new one imports for seconds, so these raylets are told to keep them,
as those of real nodes, which have many CPUs, do by themselves.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from benchmarks.ray_head import end_with_descendants, ray_head, wait_until_started

_OBJECT_STORE = 200_000_000
_KEEPING = {
    "RAY_num_workers_soft_limit": "16",
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
}


@contextmanager
def raylets(count: int, *, cpus: int, gpus: int) -> Iterator[str]:
    """The address of a cluster of a head and so many raylets, and end it.

    Args:
        count: raylets beside the head's own, which has one CPU and no GPU.
        cpus: of each.
        gpus: of each, pretended.
    """
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, _KEEPING))
        head = stack.enter_context(ray_head(1, _OBJECT_STORE))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="nightjar-", dir="/tmp"))
        for number in range(count):
            log = Path(folder, f"{number}.log")
            with log.open("wb") as sink:
                command = _command(head.address, cpus, gpus)
                process = subprocess.Popen(command, stdout=sink, stderr=sink)
            stack.callback(end_with_descendants, process)
            wait_until_started(log, process)
        yield head.address


def _command(address: str, cpus: int, gpus: int) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
        f"--address={address}",
        f"--num-cpus={cpus}",
        f"--num-gpus={gpus}",
        f"--object-store-memory={_OBJECT_STORE}",
        "--disable-usage-stats",
    ]
