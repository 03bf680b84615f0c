"""What the simulated programs work on, and what the store must hold after every step."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from pipeline.commit import digest
from pipeline.driver import Outcome, drive
from pipeline.folder import Folder
from pipeline.garbage import collect
from pipeline.log import list_versions, read_entry, read_manifest
from pipeline.schema import embedded_schema, output_schema, vector_fields
from pipeline.stages.again import Earlier
from pipeline.stages.sink import Sink
from pipeline.storage import StoredObject
from pipeline.work import Receipt, Segment, WorkUnit
from tests.simulation.store import SimulatedFolder, Store

MADE_BY = hashlib.sha256(b"made by").hexdigest()
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


def ids_of(units: Sequence[WorkUnit]) -> list[int]:
    """What an embedding of these units must hold, each once."""
    shards = (int(unit.segment.shard.etag) for unit in units)
    return sorted(shard * ROWS + row for shard in shards for row in range(ROWS))


def embed(
    folder: Folder,
    units: Sequence[WorkUnit],
    revisions: Mapping[str, int],
    earlier: Mapping[str, Receipt] = MappingProxyType({}),
) -> list[Receipt]:
    """The work of the stages: the real sink on rows whose vectors follow from their ids.

    Args:
        folder: the dataset's root.
        units: to be embedded.
        revisions: of their records, by key.
        earlier: of units of which only what was set aside is tried again, and goes well now.
    """

    def before(unit: str) -> Earlier | None:
        return Earlier(folder, earlier[unit], _AGAIN) if unit in earlier else None

    sink = Sink(folder, SCHEMA, MADE_BY, revisions, before)
    receipts = []
    for unit in units:
        key = unit.key(MADE_BY)
        rows = _rows(unit) if key not in earlier else _rows(unit, well=True).slice(ROWS - 1)
        receipts.append(sink(rows, key, unit.adapter))
    return receipts


def driver(shards: Sequence[int], again: frozenset[str] = frozenset()):  # type: ignore[no-untyped-def]
    """A program that embeds a source and commits it."""
    units = plan(shards)

    def program(folder: SimulatedFolder) -> Outcome:
        return drive(
            folder,
            units,
            schema=SCHEMA,
            fingerprint=MADE_BY,
            execute=partial(embed, folder),
            accept=lambda receipts: None,
            again=again,
        )

    return program


def retrier(shards: Sequence[int]):  # type: ignore[no-untyped-def]
    """A program that embeds what was set aside as well."""
    return driver(shards, _AGAIN)


def orphaned_worker(shards: Sequence[int]):  # type: ignore[no-untyped-def]
    """A program that embeds what a driver, dead since, once asked for."""
    return lambda folder: embed(folder, plan(shards), {})


def collector():  # type: ignore[no-untyped-def]
    """A program that deletes everything the newest version does not need."""
    return lambda folder: collect(folder, keep=())


class Watcher:
    """Looks at a store after every step, past the scheduler."""

    def __init__(self, store: Store, sources: Sequence[Sequence[int]]) -> None:
        self._folder = SimulatedFolder(store)
        self._store = store
        self._expected = {digest(plan(shards), MADE_BY): ids_of(plan(shards)) for shards in sources}
        self._log: dict[int, bytes] = {}
        self._ids: dict[str, list[int]] = {}

    def check(self) -> None:
        """Raise unless the log only grows and the newest version is whole."""
        versions = list_versions(self._folder)
        assert versions == list(range(1, len(versions) + 1)), f"the log has gaps: {versions}"
        for version in versions:
            data = self._store.objects[f"log/{version:020}.json"]
            assert self._log.setdefault(version, data) == data, f"version {version} has changed"
        assert len(self._log) == len(versions), "a version is gone"
        if versions:
            self.check_version(versions[-1])

    def check_version(self, version: int) -> None:
        """Raise unless a version holds exactly the rows of its source, and the bytes it names."""
        entry = read_entry(self._folder, version)
        found: list[int] = []
        for file in read_manifest(self._folder, entry.manifest).to_pylist():
            data = self._store.objects.get(file["path"])
            assert data is not None, f"version {version} names {file['path']}, which is gone"
            name = hashlib.sha256(data).hexdigest()
            assert name == file["sha256"], f"the bytes of {file['path']} are not those committed"
            if name not in self._ids:
                with pa.ipc.open_file(pa.py_buffer(data)) as reader:
                    table = reader.read_all()
                self._ids[name] = table["id"].to_pylist()
                if "embedding" in table.column_names:
                    vectors = table["embedding"].combine_chunks().flatten().to_numpy()
                    wanted = _vectors(table["id"].to_numpy()).reshape(-1)
                    assert np.array_equal(vectors, wanted), f"wrong vectors in {file['path']}"
            found += self._ids[name]
        assert sorted(found) == self._expected[entry.source_digest], (
            f"version {version} holds {sorted(found)}"
        )

    def newest_source(self) -> str:
        """The digest of the newest version."""
        return read_entry(self._folder, list_versions(self._folder)[-1]).source_digest

    def acknowledged(self, outcome: Outcome) -> None:
        """Raise unless what a driver was told is what the log says."""
        data = self._log.get(outcome.entry.version)
        assert data is not None, "a commit was acknowledged and is not in the log"
        assert json.loads(data)["commit_id"] == outcome.entry.commit_id


def _vectors(ids: np.ndarray) -> np.ndarray:
    return np.stack([(np.asarray(ids) + part).astype(np.float32) for part in range(_DIM)], axis=1)


def _rows(unit: WorkUnit, well: bool = False) -> pa.Table:
    ids = np.array(ids_of([unit]))
    fine = [True] * (ROWS - 1) + [well]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(_vectors(ids).reshape(-1)), _DIM)
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
