"""Plan: list the source and cut it into units of work, without reading a payload.

Everything a user can get wrong about the source is found here, before a model is loaded: no object
matches, a column is missing, two shards disagree about a type.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice, pairwise
from math import ceil

import numpy as np
import pyarrow as pa

from pipeline.errors import EmptySource, RunError, ShardError, SourceError
from pipeline.manifest import Shard
from pipeline.shards import INSPECTORS, SUFFIXES, images
from pipeline.shards.identities import Identities, Named, repeated, same
from pipeline.shards.remembered import Remembered, inspection_name
from pipeline.shards.shape import Inspected, UnitSize
from pipeline.source_spec import SourceSpec
from pipeline.spec import JobSpec
from pipeline.stages.columns import agreed_columns, agreed_id
from pipeline.storage import StoredObject, absolute, demand_unchanged, list_objects
from pipeline.work import WorkUnit, rows_by_adapter, shard_key

_CONCURRENT_INSPECTIONS = 8
_EXAMPLES = 20
"""Repeated ids, and places of each, that are named."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done."""

    units: tuple[WorkUnit, ...]
    """In the order of the source."""
    shards: tuple[Shard, ...]
    """That they are of; all files of a folder of images are one."""
    id_type: pa.DataType
    """Of every id."""
    kept: tuple[pa.Field, ...]
    """The columns carried to the output, of all sources."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Why shards that cannot be read were passed over, a sentence each, by key."""

    @property
    def rows(self) -> int:
        """Source rows."""
        return sum(unit.rows for unit in self.units)

    @property
    def rows_by_adapter(self) -> dict[str, int]:
        """Source rows of each adapter that has any."""
        return rows_by_adapter(self.units)


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A shard, or a folder of images, and what was found in it."""

    shard: Shard
    source: SourceSpec
    found: Inspected
    again: Callable[[Identities], object]
    """Inspects it once more, for the identities alone."""


def plan_work(
    spec: JobSpec,
    max_pixels: int,
    remembered: Remembered | None = None,
    *,
    allow_empty: bool = False,
) -> Plan:
    """Plan a job.

    Args:
        spec: the job.
        max_pixels: bound of a resized image, the checkpoint's own where the spec names none.
        remembered: what earlier plans learned of the shards.
        allow_empty: whether there may be nothing to read.

    Raises:
        EmptySource: there is nothing to read.
        SourceError: something cannot be read as the spec says.
        RunError: the store does not give a shard, which is no fault of the shard.
    """
    wanted = spec.compute.unit_rows
    unit_size = UnitSize(rows=None if wanted == "auto" else wanted, max_pixels=max_pixels)
    planner = _Planner(
        unit_size=unit_size,
        distinct=spec.limits.duplicate_ids == "refuse",
        remembered=remembered,
        allow_empty=allow_empty,
    )
    looks = [look for index, s in enumerate(spec.sources) for look in planner.look(s, index)]
    units = [unit for look in looks for unit in _units(look)]
    if not units and not allow_empty:
        raise EmptySource(
            f"source.uri: {_spelled(spec)} has no rows; an empty source is refused, since it is "
            "more often a wrong path than an empty corpus"
        )
    id_type = agreed_id((look.shard.uri, look.found) for look in looks)
    kept = agreed_columns((look.shard.uri, look.found, look.source.keep) for look in looks)
    if planner.distinct:
        _demand_distinct(looks)
    return Plan(
        units=tuple(units),
        shards=tuple(look.shard for look in looks),
        id_type=id_type,
        kept=kept,
        unread=planner.unread,
    )


@dataclass(kw_only=True)
class _Planner:
    """Looks at shards, or remembers what they hold."""

    unit_size: UnitSize
    distinct: bool
    remembered: Remembered | None
    allow_empty: bool = False
    unread: dict[str, str] = field(default_factory=dict)

    def look(self, source: SourceSpec, index: int) -> Iterator[_Look]:
        """At all shards of a source, in order."""
        shards = _list(source, self.allow_empty)
        if source.format == "images" and shards:
            # the listing says it all
            again = partial(images.inspect, source, index, shards, self.unit_size)
            yield self._inspected(_folder(source, shards), source, again)
            return
        with ThreadPoolExecutor(_CONCURRENT_INSPECTIONS) as pool:
            for look in pool.map(partial(self._shard, source, index), shards):
                if look is not None:
                    yield look

    def _shard(self, source: SourceSpec, index: int, shard: StoredObject) -> _Look | None:
        again = partial(INSPECTORS[source.format], source, index, shard, self.unit_size)
        name = inspection_name(source, shard, self.unit_size, self.distinct)
        if self.remembered is not None:
            known = self.remembered.find(name, index, shard)
            if known is not None:
                return _look(shard, source, known, again)
        try:
            with _readable(shard):
                look = self._inspected(shard, source, again)
        except ShardError as error:
            if source.on_bad_file == "fail":
                raise
            self.unread[shard_key(shard.uri, source.reading)] = str(error)
            return None
        if self.remembered is not None:
            self.remembered.add(name, look.found)
        return look

    def _inspected(
        self,
        shard: StoredObject,
        source: SourceSpec,
        again: Callable[[Identities | None], Inspected],
    ) -> _Look:
        identities = Identities() if self.distinct else None
        found = again(identities)
        if identities is not None:
            found.identities = identities.hashes
        return _look(shard, source, found, again)


@contextmanager
def _readable(shard: StoredObject) -> Iterator[None]:
    """End the run when a shard is not given: to skip it would take it for an empty one."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            demand_unchanged(shard)
        reason = str(error).splitlines()[0]
        raise RunError(f"{shard.uri} cannot be read: {reason}") from error


def _demand_distinct(looks: Sequence[_Look]) -> None:
    """Refuse rows that would be embedded under one name.

    Raises:
        SourceError: its notes name the first of them.
    """
    suspects = repeated([look.found.identities for look in looks])
    named: list[tuple[str, Named]] = []
    for look in looks:
        if suspects and np.isin(look.found.identities, list(suspects)).any():
            identities = Identities(suspects=suspects)
            look.again(identities)
            named += [(look.shard.uri, row) for row in identities.named]
    twice = same(named)
    if twice:
        error = SourceError(
            f"source.id: {len(twice):,} ids are there more than once for the same task; mend the "
            "source, or set limits.duplicate_ids: keep to embed every row"
        )
        for (value, task), places in islice(twice.items(), _EXAMPLES):
            error.add_note(f"  {value} ({task}): {', '.join(places[:_EXAMPLES])}")
        raise error


def _list(source: SourceSpec, allow_empty: bool) -> list[StoredObject]:
    shards: dict[str, StoredObject] = {}
    for uri in source.uris:
        found = list_objects(uri, SUFFIXES[source.format])
        if not found and not allow_empty:
            raise EmptySource(
                f"source.uri: no object matches {uri!r} (a directory is searched for "
                f"{', '.join(SUFFIXES[source.format])})"
            )
        shards |= {shard.uri: shard for shard in found}
    return list(shards.values())


def _look(
    shard: StoredObject,
    source: SourceSpec,
    found: Inspected,
    again: Callable[[Identities], object],
) -> _Look:
    of = Shard(
        key=shard_key(shard.uri, source.reading),
        # a name need not be Unicode
        uri=shard.uri.encode(errors="backslashreplace").decode(),
        size=shard.size,
        etag=shard.etag,
        rows=sum(segment.rows for segment in found.segments),
    )
    return _Look(shard=of, source=source, found=found, again=again)


def _folder(source: SourceSpec, files: Sequence[StoredObject]) -> StoredObject:
    """A folder of images as one object, which is another one when any of its files is."""
    listing = json.dumps([asdict(file) for file in files])
    return StoredObject(
        # the same from whichever directory the command is typed in
        uri=" ".join(map(absolute, source.uris)),
        size=sum(file.size for file in files),
        etag=hashlib.sha256(listing.encode()).hexdigest(),
    )


def _units(look: _Look) -> Iterator[WorkUnit]:
    """Each adapter's rows of each segment, in even slices where they are too many for one unit."""
    source, found = look.source, look.found
    for segment, by_adapter in zip(found.segments, found.by_adapter, strict=True):
        for adapter, rows in sorted(by_adapter.items()):
            slices = ceil(rows / found.unit_rows)
            bounds = [rows * i // slices for i in range(slices + 1)]
            for start, stop in pairwise(bounds):
                yield WorkUnit(
                    shard=look.shard.key,
                    segment=segment,
                    reading=source.reading,
                    adapter=adapter,
                    start=start,
                    stop=stop,
                )


def _spelled(spec: JobSpec) -> str:
    return ", ".join(repr(uri) for source in spec.sources for uri in source.uris)
