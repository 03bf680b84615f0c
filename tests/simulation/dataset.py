"""What the simulated programs work on, and what the store must hold after every step."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from pipeline.commit import demand_fit, digest
from pipeline.driver import Outcome, Wanted, drive
from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.garbage import Garbage, collect, find_garbage
from pipeline.log import (
    LogEntry,
    list_versions,
    newest_entry,
    read_condemned,
    read_entry,
)
from pipeline.manifest import Manifest, Shard, read_manifest
from pipeline.published import publish, roll_back, tag
from pipeline.records import WORK
from pipeline.schema import embedded_schema, output_schema, vector_fields
from pipeline.stages.again import Earlier
from pipeline.stages.sink import Sink
from pipeline.storage import StoredObject
from pipeline.verdict import PUBLISHED
from pipeline.work import Receipt, Segment, WorkUnit, shard_key
from tests.simulation.store import SimulatedFolder, Store

MADE_BY = hashlib.sha256(b"made by").hexdigest()
OTHERWISE = hashlib.sha256(b"made otherwise").hexdigest()
"""The fingerprint of another checkpoint, whose vectors are others."""
_DIM = 4
_VECTORS = vector_fields(dim=_DIM, single_dtype="float32", multi_dim=None, multi_dtype="")
SCHEMA = output_schema(pa.int64(), [], _VECTORS, {"fingerprint": MADE_BY})
_EMBEDDED = embedded_schema(pa.int64(), [], _VECTORS)
_REASON = "oom"
_AGAIN = frozenset({_REASON})
ROWS = 3
"""Of each unit; the last is quarantined."""

_attempts = count()


def plan(shards: Sequence[int]) -> list[WorkUnit]:
    """One unit for each shard of a source."""
    return [
        WorkUnit(
            shard=_shard(shard).key,
            segment=Segment(
                source=0,
                shard=StoredObject(uri=f"s3://source/{shard}.parquet", size=1, etag=str(shard)),
                first_row=0,
                rows=ROWS,
                row_groups=(0,),
            ),
            reading="",
            adapter="code",
            start=0,
            stop=ROWS,
        )
        for shard in shards
    ]


def _shard(number: int) -> Shard:
    uri = f"s3://source/{number}.parquet"
    return Shard(key=shard_key(uri, ""), uri=uri, size=1, etag=str(number), rows=ROWS)


def ids_of(units: Sequence[WorkUnit]) -> list[int]:
    """What an embedding of these units must hold, each once."""
    shards = (int(unit.segment.shard.etag) for unit in units)
    return sorted(shard * ROWS + row for shard in shards for row in range(ROWS))


def embed(
    folder: Folder,
    units: Sequence[WorkUnit],
    revisions: Mapping[str, int],
    earlier: Mapping[str, Receipt] = MappingProxyType({}),
    *,
    made_by: str = MADE_BY,
) -> list[Receipt]:
    """The work of the stages: the real sink on rows whose vectors follow from their ids.

    Args:
        folder: the dataset's root.
        units: to be embedded.
        revisions: of their records, by key.
        earlier: of units of which only what was set aside is tried again, and goes well now.
        made_by: the fingerprint.
    """

    def before(unit: str) -> Earlier | None:
        return Earlier(folder, earlier[unit], _AGAIN) if unit in earlier else None

    sink = Sink(folder, SCHEMA, made_by, revisions, before)
    receipts = []
    for unit in units:
        key = unit.key(made_by)
        again = key in earlier
        rows = _rows(unit, made_by, well=again).slice(ROWS - 1 if again else 0)
        receipts.append(sink(rows, key, unit.adapter))
    return receipts


def driver(  # type: ignore[no-untyped-def]
    shards: Sequence[int], again: frozenset[str] = frozenset(), made_by: str = MADE_BY
):
    """A program that embeds a source and commits it."""
    units = plan(shards)

    def program(folder: SimulatedFolder) -> Outcome:
        wanted = Wanted(
            units=units,
            shards=[_shard(shard) for shard in shards],
            schema=SCHEMA,
            fingerprint=made_by,
            source_digest=digest(units, made_by),
        )

        def fitting(newest: LogEntry | None, void: frozenset[str]) -> Wanted:
            demand_fit(folder, newest, SCHEMA, [made_by])
            return wanted

        return drive(
            folder,
            fitting,
            execute=partial(embed, folder, made_by=made_by),
            accept=lambda *judged: PUBLISHED,
            again=again,
        )

    return program


def retrier(shards: Sequence[int]):  # type: ignore[no-untyped-def]
    """A program that embeds what was set aside as well."""
    return driver(shards, _AGAIN)


def stranger(shards: Sequence[int]):  # type: ignore[no-untyped-def]
    """A program that embeds the same source another way."""
    return driver(shards, made_by=OTHERWISE)


def orphaned_worker(shards: Sequence[int]):  # type: ignore[no-untyped-def]
    """A program that embeds what a driver, dead since, once asked for."""
    return lambda folder: embed(folder, plan(shards), {})


def collector():  # type: ignore[no-untyped-def]
    """A program that deletes everything the newest version does not need."""
    return collect_all


def sparing_collector():  # type: ignore[no-untyped-def]
    """A program that keeps one more version, and what a run may go on with."""
    return lambda folder: collect(folder, find_garbage(folder, keep=2))


def publisher(version: int):  # type: ignore[no-untyped-def]
    """A program that gives readers a version, wherever in the history it is."""

    def program(folder: SimulatedFolder) -> LogEntry:
        try:
            return roll_back(folder, version)
        except OutputError:
            return publish(folder, version)

    return program


def tagger(version: int):  # type: ignore[no-untyped-def]
    """A program that names a version."""
    return lambda folder: tag(folder, "named", version)


def collect_all(folder: Folder) -> Garbage:
    """Delete everything that is neither published nor tagged; what that was."""
    garbage = find_garbage(folder, keep=0, abandoned=True)
    collect(folder, garbage)
    return garbage


class Watcher:
    """Looks at a store after every step, past the scheduler."""

    def __init__(self, store: Store, sources: Sequence[Sequence[int]]) -> None:
        self._folder = SimulatedFolder(store)
        self._store = store
        self._expected = {
            (made_by, digest(plan(shards), made_by)): ids_of(plan(shards))
            for shards in sources
            for made_by in (MADE_BY, OTHERWISE)
        }
        self._log: dict[int, bytes] = {}
        self._recorded: set[str] = set()
        self._ids: dict[tuple[str, str], list[int]] = {}

    def check(self) -> None:
        """Raise unless files come before records, the log only grows, the newest is whole."""
        self._check_records()
        versions = list_versions(self._folder)
        assert versions == list(range(1, len(versions) + 1)), f"the log has gaps: {versions}"
        for version in versions:
            data = self._store.objects[f"log/{version:020}.json"]
            assert self._log.setdefault(version, data) == data, f"version {version} has changed"
        assert len(self._log) == len(versions), "a version is gone"
        if versions:
            newest = read_entry(self._folder, versions[-1])
            for version in {newest.published, newest.snapshot, *newest.tags.values()}:
                self.check_version(version)

    def _check_records(self) -> None:
        """Raise unless the files of every new record are there, or have been."""
        for name in self._store.objects.keys() - self._recorded:
            if name.startswith(f"{WORK}/"):
                self._recorded.add(name)
                for file in Receipt.from_json(self._store.objects[name]).files:
                    size = self._store.ever.get(file.path)
                    assert size == file.size, f"{name} is there before {file.path}"

    def check_version(self, version: int) -> None:
        """Raise unless a version holds exactly the rows of its source, and the bytes it names."""
        entry = read_entry(self._folder, version)
        condemned = self._condemned()
        assert entry.fingerprint == self.made_by(), f"version {version} is made another way"
        found: list[int] = []
        for part in self._manifest(entry).parts():
            path = part.file.path
            data = self._store.objects.get(path)
            assert data is not None, f"version {version} names {path}, which is gone"
            assert path not in condemned, f"version {version} names what is condemned"
            name = hashlib.sha256(data).hexdigest()
            assert name == part.file.sha256, f"the bytes of {path} are not those committed"
            known = (name, entry.fingerprint)
            if known not in self._ids:
                with pa.ipc.open_file(pa.py_buffer(data)) as reader:
                    table = reader.read_all()
                self._ids[known] = table["id"].to_pylist()
                if "embedding" in table.column_names:
                    vectors = table["embedding"].combine_chunks().flatten().to_numpy()
                    wanted = _vectors(table["id"].to_numpy(), entry.fingerprint).reshape(-1)
                    assert np.array_equal(vectors, wanted), f"wrong vectors in {path}"
            found += self._ids[known]
        wanted_ids = self._expected[entry.fingerprint, entry.source_digest]
        assert sorted(found) == wanted_ids, f"version {version} holds {sorted(found)}"

    def _condemned(self) -> frozenset[str]:
        try:
            return read_condemned(self._folder, newest_entry(self._folder))
        except OutputError as error:
            raise AssertionError(f"what is condemned cannot be told: {error}") from error

    def _manifest(self, entry: LogEntry) -> Manifest:
        try:
            return read_manifest(self._folder, entry.manifest)
        except OutputError as error:
            raise AssertionError(f"version {entry.version}: {error}") from error

    def made_by(self) -> str:
        """The fingerprint that the dataset has, or would have from a driver of its own."""
        newest = newest_entry(self._folder)
        return MADE_BY if newest is None else newest.fingerprint

    def acknowledged(self, outcome: Outcome) -> None:
        """Raise unless what a driver was told is what the log says."""
        data = self._log.get(outcome.entry.version)
        assert data is not None, "a commit was acknowledged and is not in the log"
        assert json.loads(data)["commit_id"] == outcome.entry.commit_id


def _vectors(ids: np.ndarray, made_by: str) -> np.ndarray:
    first = 0 if made_by == MADE_BY else 1000
    parts = range(first, first + _DIM)
    return np.stack([(np.asarray(ids) + part).astype(np.float32) for part in parts], axis=1)


def _rows(unit: WorkUnit, made_by: str, well: bool = False) -> pa.Table:
    ids = np.array(ids_of([unit]))
    fine = [True] * (ROWS - 1) + [well]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(_vectors(ids, made_by).reshape(-1)), _DIM)
    values = {
        "row": np.arange(ROWS),
        "locator": [f"row={row}" for row in range(ROWS)],
        "id": ids,
        "modality": ["text"] * ROWS,
        "task": ["code.query"] * ROWS,
        "source_hash": [bytes(32)] * ROWS,
        "kept": pa.array([{}] * ROWS, pa.struct([])),
        "reason": [None if good else _REASON for good in fine],
        "stage": [None if good else "prepare" for good in fine],
        "message": [None if good else "no luck" for good in fine],
        # as on a GPU, no attempt gives the very bytes of another
        "n_tokens": [next(_attempts)] * ROWS,
        "truncated": [False] * ROWS,
        "embedding": vectors,
    }
    return pa.table(
        [
            pa.array(values[f.name], f.type)
            if not isinstance(values[f.name], pa.Array)
            else values[f.name]
            for f in _EMBEDDED
        ],
        schema=_EMBEDDED,
    )
