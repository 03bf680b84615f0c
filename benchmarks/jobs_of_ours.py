"""`nightjar embed` as the comparisons call it, and vectors read back from anybody's files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.setting import ADAPTER, TASK, Options, difference
from jobs.embed import embed
from pipeline import open_dataset
from pipeline.spec import JobSpec

Vectors = dict[str, list[NDArray[np.float32]]]
"""Output -> vector or multi-vector of each row, by ascending id."""


def embed_files(
    checkpoint: Path,
    source: Path,
    output: Path,
    *,
    multi: bool,
    options: Options,
    address: str,
    pools: Mapping[str, object],
) -> Path:
    """Embed a folder of Parquet files with the columns id and text; returns `output`.

    Args:
        checkpoint: directory.
        source: folder.
        output: root of the dataset, not there yet.
        multi: whether to make multi-vectors beside the single ones.
        options: of the run.
        address: of a running Ray, or `none`.
        pools: the spec's `compute.pools`; empty for what a user gets who names none.
    """
    spec = JobSpec.model_validate(
        {
            "name": "benchmark",
            "model": {"path": str(checkpoint), "dtype": options.dtype},
            "source": {
                "uri": f"{source}/*.parquet",
                "format": "parquet",
                "id": "id",
                "text": "text",
                "task": TASK,
            },
            "output": {"uri": str(output), "single": {}, "multi": {} if multi else None},
            "compute": {"pools": pools},
        }
    )
    embed(spec, address)
    return output


def one_actor(options: Options) -> dict[str, object]:
    """A pool of one actor with all the threads, as other programs have."""
    return {ADAPTER: {"min": 1, "max": 1, "cpus": float(options.threads), "gpus": 0.0}}


def read_ours(output: Path) -> Vectors:
    """The vectors of a committed dataset."""
    return vectors_of(open_dataset(str(output)).to_table())


def read_parquet(output: Path) -> Vectors:
    """The vectors that a Ray Data program wrote; needs `ray.data`, which knows their types."""
    return vectors_of(pq.read_table(output))


def differences(ours: Vectors, theirs: Vectors) -> dict[str, float]:
    """The largest absolute difference of each output."""
    if ours.keys() != theirs.keys():
        raise SystemExit(f"one program wrote {sorted(ours)}, another {sorted(theirs)}")
    return {name: difference(ours[name], theirs[name]) for name in ours}


def vectors_of(table: pa.Table) -> Vectors:
    """The vectors of a table with the columns id, embedding and multivector, or one of them."""
    table = table.sort_by("id").combine_chunks()
    outputs = {"embedding": "single", "multivector": "multi_float16"}
    return {
        output: [value.astype(np.float32) for value in _rows(table[column].chunk(0))]
        for column, output in outputs.items()
        if column in table.column_names
    }


def _rows(column: pa.Array) -> list[NDArray[np.floating]]:
    """Each row's numbers, whatever the layout."""
    if isinstance(column, pa.ExtensionArray):
        return list(column.to_numpy(zero_copy_only=False))
    if pa.types.is_fixed_size_list(column.type):
        return list(column.flatten().to_numpy().reshape(len(column), -1))
    vectors = column.flatten()
    flat = vectors.flatten().to_numpy().reshape(len(vectors), -1)
    return np.split(flat, np.cumsum(column.value_lengths().to_numpy())[:-1])
