"""A cluster of two raylets whose processes are found and killed.

Only descendants of the `ray start` processes of this very cluster are ever touched. Ray names its
workers after what they do at the moment, which is how a kind of victim is found.
"""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain

import psutil

from tests.chaos.schedule import Victim
from tests.end_to_end.clusters import Cluster

_NAMES = {
    Victim.ACTOR: ("ray::MapWorker(",),
    Victim.WORKER: ("ray::ReadUnit", "ray::MapBatches(", "ray::Write"),
}
_LONGEST_END = 60.0
"""Seconds until Ray has ended the workers of a driver that is gone."""


class Nodes:
    """The head, which stays, and the other, which may be lost and comes back."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._starter = ThreadPoolExecutor(1)
        self._other: Future[subprocess.Popen[bytes]] = self._starter.submit(cluster.add_node)
        self.demand_whole()

    @property
    def address(self) -> str:
        """host:port of the head."""
        return self._cluster.address

    def demand_whole(self) -> None:
        """Wait until both raylets are there."""
        self._other.result(timeout=120)

    def demand_idle(self) -> None:
        """Wait until nobody works: what a killed driver had begun ends with it."""
        deadline = time.monotonic() + _LONGEST_END
        working = tuple(chain.from_iterable(_NAMES.values()))
        while left := [
            f"{p.pid} {name}" for p, name in self._workers() if name.startswith(working)
        ]:
            assert time.monotonic() < deadline, f"still at work without a driver: {left}"
            time.sleep(0.1)

    def close(self) -> None:
        """Start no more."""
        self._starter.shutdown()

    def names(self) -> list[str]:
        """What the workers are doing, for a report."""
        return [f"{process.pid} {name}" for process, name in self._workers()]

    def kill(self, victim: Victim, count: int, place: float) -> list[str]:
        """Kill some of a kind; what was killed, nothing where there is none at the moment.

        Args:
            victim: an actor, a worker or a raylet.
            count: how many at most.
            place: from 0 to 1, which of those there are.
        """
        if victim is Victim.RAYLET:
            return self._lose_node()
        found = sorted(
            ((p, name) for p, name in self._workers() if name.startswith(_NAMES[victim])),
            key=lambda pair: pair[0].pid,
        )
        first = int(place * len(found))
        chosen = [*found[first:], *found[:first]][:count]
        for process, _ in chosen:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return [f"{process.pid} {name}" for process, name in chosen]

    def _lose_node(self) -> list[str]:
        # a run that begins on what is left sizes its pools by it, and may rightly be refused
        begun = any(name.startswith(_NAMES[Victim.ACTOR]) for _, name in self._workers())
        if not self._other.done() or not begun:
            return []
        start = self._other.result()
        lost = kill_tree(start)
        self._other = self._starter.submit(self._cluster.add_node)
        return [f"{start.pid} with {lost - 1} processes"]

    def _workers(self) -> Iterator[tuple[psutil.Process, str]]:
        starts = [self._cluster.head]
        if self._other.done():
            starts.append(self._other.result())
        for start in starts:
            with suppress(psutil.NoSuchProcess):
                for process in psutil.Process(start.pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        name = " ".join(process.cmdline()).strip()
                        if name.startswith("ray::"):
                            yield process, name


def kill_tree(start: subprocess.Popen[bytes]) -> int:
    """Kill a process and all that it has started; how many there were."""
    tree = [psutil.Process(start.pid)]
    tree += tree[0].children(recursive=True)
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    start.wait()
    return len(tree)
