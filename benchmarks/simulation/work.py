"""The corpus, its job, and workers that do nothing to rows but account for them.

The shards are real Parquet, so narrow that a hundred million rows are some hundred megabytes: ids
that count up, and one text for all. A worker does not read them: a unit is one row that says how
many it stands for, its embedding is a sleep, and what is written is a small object under the name
that the real one would have. The record of the unit is a real one. So objects, requests and all
that the driver sees are those of a real run; bytes of vectors are not.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.setting import TASK
from benchmarks.simulation.store import url, use_directory_store
from pipeline.copies import Fetched
from pipeline.folder import Folder
from pipeline.log import generation
from pipeline.manifest import DATA
from pipeline.records import Records
from pipeline.spec import JobSpec
from pipeline.stages.recipe import Recipe
from pipeline.stages.told import DeviceWork
from pipeline.work import Receipt, WorkUnit, WrittenFile

TOKENS_PER_ROW = 20
_OBJECT = b"what a worker of the simulation writes for a unit\n"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What is embedded."""

    rows: int
    """In all."""
    shards: int
    """Objects they lie in, evenly."""
    group_rows: int
    """Rows of a row group: a unit is never more than one unless it is small."""
    unit_rows: int
    """Rows of a unit at most."""
    duplicate_ids: str
    """`refuse` or `keep`, of the spec's limits."""


def write_shards(folder: Path, corpus: Corpus) -> None:
    """The corpus, its ids all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(corpus.shards):
        first = corpus.rows * number // corpus.shards
        last = corpus.rows * (number + 1) // corpus.shards
        text = pa.DictionaryArray.from_arrays(
            pa.repeat(pa.scalar(0, pa.int8()), last - first), [""]
        )
        pq.write_table(
            pa.table(
                {"id": pa.array(range(first, last), pa.int64()), "text": text.cast(pa.string())}
            ),
            folder / f"part-{number:05}.parquet",
            row_group_size=corpus.group_rows,
            use_dictionary=["text"],
            column_encoding={"id": "DELTA_BINARY_PACKED"},
            compression="zstd",
        )


def job_spec(checkpoint: Path, source: Path, output: Path, corpus: Corpus) -> JobSpec:
    """The job."""
    return JobSpec.model_validate(
        {
            "name": "simulation",
            "model": {"path": str(checkpoint), "dtype": "float32"},
            "source": {
                "uri": f"{url(source)}/*.parquet",
                "format": "parquet",
                "id": "id",
                "text": "text",
                "task": TASK,
            },
            "output": {"uri": url(output), "single": {}, "multi": None},
            "compute": {"unit_rows": corpus.unit_rows},
            "limits": {"duplicate_ids": corpus.duplicate_ids},
        }
    )


@dataclass(frozen=True, kw_only=True)
class SimulatedRecipe(Recipe):
    """A recipe whose stages account for rows."""

    unit_seconds: float
    """For which a unit is on a device."""

    @classmethod
    def made_of(cls, recipe: Recipe, unit_seconds: float) -> "SimulatedRecipe":
        """The same, but for what becomes of rows."""
        plain = {entry.name: getattr(recipe, entry.name) for entry in fields(recipe)}
        return cls(**plain, unit_seconds=unit_seconds)

    def read(self, units: Sequence[WorkUnit]) -> Iterator[tuple[WorkUnit, pa.Table]]:
        """One row for each unit: how many it stands for."""
        self._begin()
        for unit in units:
            yield unit, pa.table({"rows": [unit.rows]})

    def prepare(self, expendable: bool = True) -> Any:
        """Nothing is prepared."""
        return _Nothing()

    def embed(
        self,
        adapter: str,
        device: str,
        actor: str | None = None,
        threads: int | None = None,
        fetched: Fetched | None = None,
    ) -> Any:
        """A device that is busy for so long."""
        return _Device(self.unit_seconds)

    def sink(self) -> Any:
        """Writes a small object and a real record."""
        self._begin()
        return _SmallSink(Folder(self.output), self.fingerprint)

    def _begin(self) -> None:
        use_directory_store()
        super()._begin()


class _Nothing:
    items = 0

    def __call__(self, rows: pa.Table) -> pa.Table:
        return rows


class _Device:
    device = "simulated"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.packs = 0

    @property
    def work(self) -> DeviceWork:
        return DeviceWork(packs=self.packs, busy_seconds=self.packs * self._seconds)

    def __call__(self, items: pa.Table, adapter: str) -> pa.Table:
        time.sleep(self._seconds)
        self.packs += 1
        return items


class _SmallSink:
    def __init__(self, folder: Folder, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._records = Records(folder, fingerprint)

    def __call__(self, items: pa.Table, unit: str, adapter: str) -> Receipt:
        (rows,) = items["rows"].to_pylist()
        name = f"{DATA}/{generation(self._fingerprint)}/{unit}-{uuid.uuid4().hex}.arrow"
        self._folder.put(name, _OBJECT)
        written = WrittenFile(
            path=name, sha256=hashlib.sha256(_OBJECT).hexdigest(), size=len(_OBJECT), rows=rows
        )
        receipt = Receipt(
            unit=unit,
            adapter=adapter,
            rows=rows,
            items=rows,
            embedded={"text": rows},
            quarantined={},
            tokens=rows * TOKENS_PER_ROW,
            data=written,
            quarantine=None,
        )
        return self._records.record(receipt, 0)
