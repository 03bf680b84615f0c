"""Multi-vectors as others write them: Ray Data's writer, and pyarrow's, nested Parquet and IPC.

All get the numbers in the form they hold them in anyway, and their default settings, which is what
a program gets that does not know better; what better costs is shown by ours.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray


def ray_dataset(tables: list[pa.Table]) -> ray.data.Dataset:
    """The vectors as a `map_batches` would have left them: one array for each row.

    Args:
        tables: with the columns id and multivector.
    """
    return (
        ray.data.from_arrow(tables)
        .map_batches(_as_arrays, batch_size=None, batch_format="pyarrow")
        .materialize()
    )


def write_ray(dataset: ray.data.Dataset, output: Path) -> None:
    """One file for each block."""
    dataset.write_parquet(str(output))


def read_ray(output: Path) -> ray.data.Dataset:
    """Back as arrays, in the object store."""
    return ray.data.read_parquet(str(output)).materialize()


def write_ipc(tables: list[pa.Table], output: Path) -> None:
    """Arrow's file format, nothing compressed."""
    output.mkdir()
    for number, table in enumerate(tables):
        with pa.ipc.new_file(output / f"part-{number:03}.arrow", table.schema) as writer:
            writer.write_table(table)


def write_nested(tables: list[pa.Table], output: Path) -> None:
    """`pq.write_table` and nothing else."""
    output.mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, output / f"part-{number:03}.parquet")


def read_nested(output: Path) -> pa.Table:
    """Back as Arrow."""
    return pq.read_table(output)


def _as_arrays(table: pa.Table) -> dict[str, np.ndarray]:
    column = table["multivector"].combine_chunks()
    vectors = column.flatten()
    flat = vectors.flatten().to_numpy().reshape(len(vectors), -1)
    held = np.empty(len(table), dtype=object)
    held[:] = np.split(flat, np.cumsum(column.value_lengths().to_numpy())[:-1])
    return {"id": table["id"].to_numpy(), "multivector": held}
