"""A committed dataset of random vectors, for what comes after the commit: no model, no source."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.setting import ADAPTER, TASK
from pipeline.commit import Snapshot, commit
from pipeline.folder import Folder
from pipeline.fragments import put_table
from pipeline.manifest import DATA, Manifest, Part
from pipeline.schema import output_schema, vector_fields
from pipeline.shards.shape import TEXT_UNIT_ROWS

_FINGERPRINT = "f" * 64


def commit_random_dataset(root: Path, rows: int, dim: int, seed: int) -> None:
    """Write and commit single vectors of length one, with the columns title and year, in files as
    the units of a job of texts leave them.

    Args:
        root: of the dataset.
        rows: how many.
        dim: numbers of a vector, float32.
        seed: of the numbers.
    """
    vectors = vector_fields(dim=dim, single_dtype="float32", multi_dim=None, multi_dtype="")
    kept = [pa.field("title", pa.string()), pa.field("year", pa.int32())]
    schema = output_schema(pa.string(), kept, vectors, {"fingerprint": _FINGERPRINT})
    folder, parts = Folder(str(root)), []
    random = np.random.default_rng(seed)
    for start in range(0, rows, TEXT_UNIT_ROWS):
        table = _rows(schema, start, min(TEXT_UNIT_ROWS, rows - start), random)
        written = put_table(folder, DATA, _FINGERPRINT, f"{start:032}", table)
        parts.append(Part(kind=DATA, shard="shard", unit="unit", adapter=ADAPTER, file=written))
    snapshot = Snapshot(
        manifest=Manifest.of([], parts),
        schema=schema,
        fingerprint=_FINGERPRINT,
        source_digest=_FINGERPRINT,
    )
    commit(folder, snapshot, None)


def _rows(schema: pa.Schema, start: int, count: int, random: np.random.Generator) -> pa.Table:
    numbers = np.arange(start, start + count)
    kind = schema.field("embedding").type
    drawn = random.standard_normal((count, kind.list_size), np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    columns = {
        "id": [f"doc-{number:012}" for number in numbers],
        "modality": ["text"] * count,
        "task": [TASK] * count,
        "title": [f"title {number}" for number in numbers],
        "year": 2000 + numbers % 27,
        "n_tokens": [40] * count,
        "truncated": [False] * count,
        "source_hash": [bytes(32)] * count,
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(drawn.ravel()), type=kind),
    }
    return pa.table([columns.get(f.name, pa.nulls(count, f.type)) for f in schema], schema=schema)
