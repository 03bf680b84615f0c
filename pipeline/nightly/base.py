"""The snapshot before: its rows with their signs, and where its vectors are."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ahead import ahead
from pipeline.folder import Folder
from pipeline.fragments import FragmentReader, living_rows, read_columns
from pipeline.manifest import Part
from pipeline.nightly.signs import SIGN, SIGNS, contents_of, own_fields, signs

Place = tuple[str, int]
"""Path of a data file, and the number of a row in it."""

_COMPARED = ("id", "task", "modality", "source_hash")
WHERE = pa.schema([pa.field("part", pa.int32()), pa.field("at", pa.int32())])
"""Number of a part, and of a row in its file."""
BASE = pa.schema([*WHERE, *SIGNS])
PLACES = pa.schema([pa.field("content", SIGN), *WHERE])


def base_rows(schema: pa.Schema, folder: Folder, parts: Sequence[tuple[int, Part]]) -> pa.Table:
    """The living rows of some parts of a snapshot, with their signs: a table of `BASE`.

    Args:
        schema: of the snapshot's rows.
        folder: the dataset's root.
        parts: with their numbers.
    """
    tables = [BASE.empty_table()]
    names = [*_COMPARED, *(field.name for field in own_fields(schema)[1:])]

    def read(numbered: tuple[int, Part]) -> pa.Table:
        reader = FragmentReader(schema=schema, load=partial(read_columns, folder))
        return reader.rows(numbered[1], names)

    for (number, part), rows in zip(parts, ahead(read, parts), strict=True):
        columns = [rows[name].combine_chunks() for name in names]
        ids, tasks, modalities, hashes, *others = columns
        found = signs(part.shard, schema, ids, tasks, modalities, hashes, others)
        at = pa.array(np.flatnonzero(living_rows(part)), pa.int32())
        of_part = pa.array(np.full(len(at), number), pa.int32())
        tables.append(pa.table([of_part, at, *found.columns], schema=BASE))
    return pa.concat_tables(tables)


def less(parts: Sequence[Part], dead: pa.Table) -> list[Part]:
    """Parts without the rows that are dead; none of which all are."""
    more: defaultdict[int, list[int]] = defaultdict(list)
    for number, at in zip(dead["part"].to_pylist(), dead["at"].to_pylist(), strict=True):
        more[number].append(at)
    left = [
        replace(part, dead=tuple(sorted({*part.dead, *more[number]})))
        for number, part in enumerate(parts)
    ]
    return [part for part in left if part.rows]


def apart(parts: Sequence[Part], kept: pa.Table) -> list[Part]:
    """Of some parts the rows that are kept though they are gone, as parts of no shard.

    A shard that is as it was is not looked at, and so nothing may hide in it that it has not.
    """
    living: defaultdict[int, set[int]] = defaultdict(set)
    for number, at in zip(kept["part"].to_pylist(), kept["at"].to_pylist(), strict=True):
        living[number].add(at)
    return [
        replace(
            parts[number],
            shard="",
            dead=tuple(at for at in range(parts[number].file.rows) if at not in rows),
        )
        for number, rows in sorted(living.items())
    ]


def places_in(wanted: pa.Array, folder: Folder, parts: Sequence[tuple[int, Part]]) -> pa.Table:
    """Which rows of the files of some parts have one of the contents wanted: of `PLACES`."""
    found = [PLACES.empty_table()]

    def read(numbered: tuple[int, Part]) -> pa.Table:
        return read_columns(folder, numbered[1].file.path, ["task", "source_hash"])

    for (number, _), rows in zip(parts, ahead(read, parts), strict=True):
        contents = contents_of(*(rows[name].combine_chunks() for name in rows.column_names))
        at = np.flatnonzero(pc.is_in(contents, wanted).to_numpy(zero_copy_only=False))
        numbers = pa.array(np.full(len(at), number), pa.int32())
        columns = [contents.take(pa.array(at)), numbers, pa.array(at, pa.int32())]
        found.append(pa.table(columns, schema=PLACES))
    return pa.concat_tables(found)


def first_places(parts: Sequence[Part], found: Iterable[pa.Table]) -> dict[bytes, Place]:
    """The first place of each content, of places found in some parts."""
    places: dict[bytes, Place] = {}
    for table in found:
        columns = (table[name].to_pylist() for name in PLACES.names)
        for content, number, at in zip(*columns, strict=True):
            places.setdefault(content, (parts[number].file.path, at))
    return places
