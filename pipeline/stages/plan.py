"""Plan: list the source and cut it into units of work, without reading a payload.

Everything a user can get wrong about the source is found here, before a model is loaded: no object
matches, a column is missing, two shards disagree about a type.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.shards import INSPECTORS, SUFFIXES, images
from pipeline.shards.shape import Inspected, UnitSize, agree
from pipeline.source_spec import SourceSpec
from pipeline.spec import JobSpec
from pipeline.storage import StoredObject, list_objects
from pipeline.work import WorkUnit, rows_by_adapter

_CONCURRENT_INSPECTIONS = 8


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done."""

    units: tuple[WorkUnit, ...]
    """In the order of the source."""
    id_type: pa.DataType
    """Of every id."""
    kept: tuple[pa.Field, ...]
    """The columns carried to the output, of all sources."""

    @property
    def rows(self) -> int:
        """Source rows."""
        return sum(unit.rows for unit in self.units)

    @property
    def rows_by_adapter(self) -> dict[str, int]:
        """Source rows of each adapter that has any."""
        return rows_by_adapter(self.units)


def plan_work(spec: JobSpec, max_pixels: int) -> Plan:
    """Plan a job.

    Args:
        spec: the job.
        max_pixels: bound of a resized image, the checkpoint's own where the spec names none.

    Raises:
        SourceError: nothing to read, or something that cannot be read as the spec says.
    """
    wanted = spec.compute.unit_rows
    unit_size = UnitSize(rows=None if wanted == "auto" else wanted, max_pixels=max_pixels)
    inspected: list[tuple[str, SourceSpec, Inspected]] = []
    for index, source in enumerate(spec.sources):
        shards = _list(source)
        inspected += [(name, source, f) for name, f in _inspect(source, index, shards, unit_size)]
    units = [unit for _, source, found in inspected for unit in _units(source, found)]
    if not units:
        raise SourceError(
            f"source.uri: {_spelled(spec)} has no rows; an empty source is refused, since it is "
            "more often a wrong path than an empty corpus"
        )
    id_type = pa.null()
    kept: dict[str, pa.DataType] = {}
    for name, source, found in inspected:
        agreed = _agree(id_type, found.id_type, "source.id", name)
        widened = not pa.types.is_null(id_type) and id_type != agreed
        if pa.types.is_floating(agreed) and (widened or not pa.types.is_floating(found.id_type)):
            # whole numbers made floating would no longer be the ids they were
            raise SourceError(f"source.id is {found.id_type} in {name}, and {id_type} elsewhere")
        id_type = agreed
        for column in source.keep:
            kept[column] = _agree(
                kept.get(column, pa.null()), found.kept[column], f"source.keep: {column!r}", name
            )
    return Plan(
        units=tuple(units),
        id_type=_or_string(id_type),
        kept=tuple(pa.field(name, _or_string(kind)) for name, kind in kept.items()),
    )


def _list(source: SourceSpec) -> list[StoredObject]:
    shards: dict[str, StoredObject] = {}
    for uri in source.uris:
        found = list_objects(uri, SUFFIXES[source.format])
        if not found:
            raise SourceError(
                f"source.uri: no object matches {uri!r} (a directory is searched for "
                f"{', '.join(SUFFIXES[source.format])})"
            )
        shards |= {shard.uri: shard for shard in found}
    return list(shards.values())


def _inspect(
    source: SourceSpec, index: int, shards: Sequence[StoredObject], unit_size: UnitSize
) -> Iterator[tuple[str, Inspected]]:
    if source.format == "images":
        yield source.uris[0], images.inspect(source, index, shards, unit_size)
        return
    inspect = INSPECTORS[source.format]
    with ThreadPoolExecutor(_CONCURRENT_INSPECTIONS) as pool:
        found = pool.map(lambda shard: inspect(source, index, shard, unit_size), shards)
        yield from zip((shard.uri for shard in shards), found, strict=True)


def _units(source: SourceSpec, found: Inspected) -> Iterator[WorkUnit]:
    """Each adapter's rows of each segment, in even slices where they are too many for one unit."""
    for segment, by_adapter in zip(found.segments, found.by_adapter, strict=True):
        for adapter, rows in sorted(by_adapter.items()):
            slices = ceil(rows / found.unit_rows)
            bounds = [rows * i // slices for i in range(slices + 1)]
            for start, stop in pairwise(bounds):
                yield WorkUnit(
                    segment=segment,
                    reading=source.reading,
                    adapter=adapter,
                    start=start,
                    stop=stop,
                )


def _agree(one: pa.DataType, other: pa.DataType, what: str, shard: str) -> pa.DataType:
    agreed = agree(one, other)
    if agreed is None:
        raise SourceError(f"{what} is {other} in {shard}, and {one} in the shards before it")
    return agreed


def _or_string(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_null(kind) else kind


def _spelled(spec: JobSpec) -> str:
    return ", ".join(repr(uri) for source in spec.sources for uri in source.uris)
