"""A corpus of short texts, and a committed dataset of it whose vectors no model has made.

What a night compares does not depend on the vectors, so these are random units: a snapshot of a
million rows is there in a minute. Everything else goes the way of a job: the plan's units, the
source stage, the sink's files and records, the commit.
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.setting import TASK
from jobs.embed import CheckedJob, check
from pipeline.commit import Snapshot, commit, digest
from pipeline.manifest import Manifest, parts_of
from pipeline.schema import embedded_schema
from pipeline.spec import JobSpec
from pipeline.stages.flow import opened_together
from pipeline.stages.recipe import Recipe

_ROW_GROUP = 8192
_WORDS = ("owl", "night", "moth", "barn", "heath", "dusk", "wing", "nest")


def write_shards(
    directory: Path, rows: int, shards: int, *, turn: int = 0, changed: int | None = None
) -> None:
    """Parquet shards with the columns id, text and title.

    Args:
        directory: of them.
        rows: in all.
        shards: how many.
        turn: in which they are written; each gives other bytes.
        changed: every how many rows one has another text in this turn; None for none.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        first, last = rows * number // shards, rows * (number + 1) // shards
        at = range(first, last)
        table = pa.table(
            {
                "id": pa.array([f"doc-{n:012}" for n in at]),
                "text": pa.array(
                    [_text(n, turn if changed and n % changed == 0 else 0) for n in at]
                ),
                "title": pa.array([f"title {n}" for n in at]),
            }
        )
        path = directory / f"part-{number:05}.parquet"
        path.unlink(missing_ok=True)
        pq.write_table(
            table.replace_schema_metadata({"turn": str(turn)}), path, row_group_size=_ROW_GROUP
        )


def _text(number: int, turn: int) -> str:
    words = [_WORDS[(number >> 3 * place) % len(_WORDS)] for place in range(40)]
    return f"{number} {turn} {' '.join(words)}"


def checked_job(checkpoint: Path, source: Path, output: Path) -> CheckedJob:
    """The job whose nights are measured; its plan is made anew."""
    return check(job_spec(checkpoint, source, output), anew=True)


def job_spec(checkpoint: Path, source: Path, output: Path) -> JobSpec:
    """A job of single vectors of all texts."""
    return JobSpec.model_validate(
        {
            "name": "comparison",
            "model": {"path": str(checkpoint), "dtype": "float32"},
            "source": {
                "uri": f"{source}/*.parquet",
                "format": "parquet",
                "id": "id",
                "text": "text",
                "task": TASK,
                "keep": ["title"],
            },
            "output": {"uri": str(output), "single": {}, "multi": None},
        }
    )


def commit_random_vectors(job: CheckedJob) -> None:
    """Commit a snapshot of the job's source, as `nightjar embed` would, without a model."""
    recipe, units = job.recipes["float32"], job.plan.units
    sink, receipts = recipe.sink(), []
    for group in opened_together(units):
        for unit, rows in recipe.read(group):
            key = unit.key(recipe.fingerprint)
            receipts.append(sink(_embedded(recipe, rows), key, unit.adapter))
    parts = [
        part
        for unit, receipt in zip(units, receipts, strict=True)
        for part in parts_of(unit.shard, receipt)
    ]
    snapshot = Snapshot(
        manifest=Manifest.of(job.plan.shards, parts),
        schema=recipe.schema,
        fingerprint=recipe.fingerprint,
        source_digest=digest(units, recipe.fingerprint),
    )
    commit(job.folder, snapshot, None)
    job.remembered.keep()


def _embedded(recipe: Recipe, rows: pa.Table) -> pa.Table:
    """The items of source rows, with vectors drawn at random."""
    count, (vectors,) = rows.num_rows, recipe.vectors
    random = np.random.default_rng(rows["row"][0].as_py())
    drawn = random.standard_normal((count, vectors.type.list_size), np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    hashes = [hashlib.sha256(b"text\0" + text).digest() for text in rows["text"].to_pylist()]
    schema = embedded_schema(recipe.id_type, recipe.kept, recipe.vectors)
    columns = {name: rows[name] for name in ("row", "locator", "id", "task", "kept")} | {
        "modality": pa.array(["text"] * count),
        "source_hash": pa.array(hashes, schema.field("source_hash").type),
        "n_tokens": pa.array([40] * count, pa.int32()),
        "truncated": pa.array([False] * count),
        vectors.name: pa.FixedSizeListArray.from_arrays(pa.array(drawn.ravel()), type=vectors.type),
    }
    arrays = [columns.get(f.name, pa.nulls(count, f.type)) for f in schema]
    return pa.table(arrays, schema=schema)
