"""The snapshot before: its rows with their signs, and where its vectors are."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from pipeline.folder import Folder
from pipeline.fragments import FragmentReader, living_rows, read_columns
from pipeline.log import LogEntry
from pipeline.manifest import Part
from pipeline.nightly.signs import SIGNS, content_of, own_fields, signs

Place = tuple[str, int]
"""Path of a data file, and the number of a row in it."""

_COMPARED = ("id", "task", "modality", "source_hash")
BASE = pa.schema([pa.field("part", pa.int32()), pa.field("at", pa.int32()), *SIGNS])


def base_rows(folder: Folder, newest: LogEntry | None, parts: Sequence[Part]) -> pa.Table:
    """The living rows of some parts of a snapshot, with their signs."""
    tables = [BASE.empty_table()]
    if newest is None:
        return tables[0]
    schema = newest.row_schema
    reader = FragmentReader(schema=schema, load=partial(read_columns, folder))
    kept = [field.name for field in own_fields(schema)[1:]]
    for number, part in enumerate(parts):
        rows = reader.rows(part, [*_COMPARED, *kept])
        tasks, modalities, hashes = (rows[name].to_pylist() for name in _COMPARED[1:])
        columns = [rows[name].combine_chunks() for name in kept]
        ids = rows["id"].combine_chunks()
        found = signs(part.shard, schema, ids, tasks, modalities, hashes, columns)
        where = [
            pa.array([number] * rows.num_rows, pa.int32()),
            pa.array(np.flatnonzero(living_rows(part)), pa.int32()),
        ]
        tables.append(pa.table([*where, *found.columns], schema=BASE))
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


def places_of(
    folder: Folder, parts: Sequence[Part], contents: pa.ChunkedArray
) -> dict[bytes, Place]:
    """Where vectors of contents are, of those that are anywhere in the files of some parts."""
    wanted = set(contents.drop_null().to_pylist())
    found: dict[bytes, Place] = {}
    for part in parts if wanted else ():
        rows = read_columns(folder, part.file.path, ["task", "source_hash"])
        keys = map(content_of, rows["task"].to_pylist(), rows["source_hash"].to_pylist())
        for at, key in enumerate(keys):
            if key in wanted:
                found.setdefault(key, (part.file.path, at))
    return found
