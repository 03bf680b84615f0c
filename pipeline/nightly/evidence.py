"""Evidence: what the vectors of a snapshot look like, read back from where they were written.

All vectors of a file are held to be finite and of length one; a few, evenly from all, are taken
along to be compared. A row of many vectors is represented by their mean, of length one.

Legend: N rows, V vectors, D size of a vector.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.folder import Folder
from pipeline.fragments import living_rows, read_columns
from pipeline.manifest import Part
from pipeline.nightly.signs import content_of
from pipeline.schema import largest_single, single_types, vector_columns
from pipeline.soundness import of_unit_length

SAMPLE = 2000
"""Rows that are taken along: with 2,048 numbers each they are 16 MB, and compared in a second."""


_FILES = 64
"""Of a snapshot before, of which rows are taken along: what is compared is not to be read whole."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows of a snapshot."""

    groups: tuple[str, ...]
    """Modality and task of each."""
    contents: tuple[bytes, ...]
    """Likewise, from `content_of`."""
    vectors: dict[str, NDArray[np.float32]]
    """[N, D] by column."""

    @classmethod
    def of(cls, samples: Sequence["Sample"]) -> "Sample":
        """All rows of some samples."""
        columns = samples[0].vectors if samples else {}
        return cls(
            groups=tuple(group for sample in samples for group in sample.groups),
            contents=tuple(content for sample in samples for content in sample.contents),
            vectors={
                name: np.concatenate([sample.vectors[name] for sample in samples])
                for name in columns
            },
        )


@dataclass(frozen=True, kw_only=True)
class Look:
    """A data file that is to be looked at."""

    part: Part
    """Of a snapshot."""
    rows: int
    """How many to take along."""
    is_judged: bool = True
    """Whether all its vectors are held to be sound; else only what is compared is read."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a look at a data file has shown."""

    rows: int
    """That the snapshot holds of it."""
    unsound: int
    """Rows with a vector that is not finite, or not of length one."""
    sample: Sample
    """Those taken along."""


def few_of(parts: Sequence[Part]) -> list[Look]:
    """Looks at a few of many data files, evenly chosen, only to compare with what is there."""
    step = ceil(len(parts) / _FILES) or 1
    return [replace(look, is_judged=False) for look in spread(parts[::step]) if look.rows]


def spread(parts: Sequence[Part], most: int = SAMPLE) -> list[Look]:
    """Looks at all of some data files that take along about so many rows, evenly from all."""
    ends = np.cumsum([part.rows for part in parts])
    there = int(ends[-1]) if len(ends) else 0
    wanted = np.linspace(0, there, min(most, there), endpoint=False)
    files, counts = np.unique(np.searchsorted(ends, wanted, side="right"), return_counts=True)
    taken = dict(zip(files.tolist(), counts.tolist(), strict=True))
    return [Look(part=part, rows=taken.get(n, 0)) for n, part in enumerate(parts)]


def look_at(schema: pa.Schema, folder: Folder, look: Look) -> Seen:
    """Look at a data file.

    Args:
        schema: of the rows.
        folder: the dataset's root.
        look: what at.
    """
    compared = compared_columns(schema)
    columns = vector_columns(schema) if look.is_judged else compared
    names = ["modality", "task", "source_hash", *columns]
    table = read_columns(folder, look.part.file.path, names)
    living = np.flatnonzero(living_rows(look.part))
    sound = np.ones(table.num_rows, np.bool_)
    for name in columns if look.is_judged else ():
        sound &= _sound(table[name].combine_chunks())
    taken = living[np.linspace(0, len(living), look.rows, endpoint=False).astype(np.int64)]
    return Seen(
        rows=len(living),
        unsound=int((~sound[living]).sum()),
        sample=_sample(table.take(pa.array(taken)), compared),
    )


def compared_columns(schema: pa.Schema) -> list[str]:
    """The largest single vector, of which the others are parts, and the multi-vector."""
    largest, singles = largest_single(schema), single_types(schema)
    multis = [name for name in vector_columns(schema) if name not in singles]
    return multis if largest is None else [largest, *multis]


def total(seen: Iterable[Seen]) -> Seen:
    """What some looks have shown together."""
    found = list(seen)
    return Seen(
        rows=sum(one.rows for one in found),
        unsound=sum(one.unsound for one in found),
        sample=Sample.of([one.sample for one in found if one.sample.groups]),
    )


def _sample(rows: pa.Table, columns: Sequence[str]) -> Sample:
    tasks, hashes = rows["task"].to_pylist(), rows["source_hash"].to_pylist()
    modalities = rows["modality"].to_pylist()
    return Sample(
        groups=tuple(f"{m} of {task}" for m, task in zip(modalities, tasks, strict=True)),
        contents=tuple(map(content_of, tasks, hashes)),
        vectors={name: _representatives(rows[name].combine_chunks()) for name in columns},
    )


def _sound(column: pa.Array) -> NDArray[np.bool_]:
    """[N] whether all vectors of a row are sound."""
    well: NDArray[np.bool_]
    if pa.types.is_fixed_size_list(column.type):
        well = of_unit_length(_numbers(column)) & ~column.is_null().to_numpy(zero_copy_only=False)
        return well
    lengths, vectors_VD = _lengths(column), _numbers(column.flatten())
    well = lengths > 0
    well[np.repeat(np.arange(len(lengths)), lengths)[~of_unit_length(vectors_VD)]] = False
    return well


def _representatives(column: pa.Array) -> NDArray[np.float32]:
    """[N, D] a vector for each row."""
    if pa.types.is_fixed_size_list(column.type):
        return _numbers(column)
    lengths, vectors_VD = _lengths(column), _numbers(column.flatten())
    means_ND = np.zeros((len(lengths), vectors_VD.shape[1]), np.float32)
    np.add.at(means_ND, np.repeat(np.arange(len(lengths)), lengths), vectors_VD)
    norms_N1 = np.linalg.norm(means_ND, axis=1, keepdims=True)
    means_ND /= np.where(norms_N1 > 0, norms_N1, 1)
    return means_ND


def _lengths(column: pa.ListArray) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return lengths.astype(np.int64)


def _numbers(vectors: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """[V, D]; of one that is null, whatever is there."""
    size = vectors.type.list_size
    start = vectors.offset * size
    values = vectors.values.slice(start, len(vectors) * size).to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float32).reshape(-1, size)
