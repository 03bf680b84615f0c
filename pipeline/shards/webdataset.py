"""Tar shards in the webdataset layout: members that share a key are one sample.

Planned by one walk over the member headers, which finds where samples begin; a segment is then one
range of bytes, parsed in memory. Members are never extracted, so their names and links are
harmless. A column is a member extension (`txt`), or failing that a field of the sample's `json`.
"""

import io
import json
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.errors import Reason, ShardError, SourceError
from pipeline.shards.identities import Identities
from pipeline.shards.images import SUFFIXES as IMAGE_SUFFIXES
from pipeline.shards.shape import (
    Inspected,
    SourceRow,
    UnitSize,
    count_adapters,
    infer_type,
    to_table,
)
from pipeline.source_spec import SourceSpec
from pipeline.storage import StoredObject, open_object, read_object
from pipeline.work import Segment

SUFFIXES = (".tar",)

_TEXT = "txt"
_METADATA = "json"
_IMAGES = tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)


@dataclass(kw_only=True)
class Sample:
    """The members of one key."""

    key: str
    start: int
    """Where its first header begins in the shard."""
    stop: int
    """Where the header after its last member begins."""
    members: dict[str, bytes | None] = field(default_factory=dict)
    """Content by extension; None where it was not wanted."""

    def value(self, column: str) -> Any:
        """A column's value: the text of a member, or a field of the metadata."""
        content = self.members.get(column)
        if content is not None:
            return content.decode(errors="replace")
        return self.metadata.get(column)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The parsed json member; empty when there is none or it is no object."""
        try:
            parsed = json.loads(self.members.get(_METADATA) or b"{}")
        except (ValueError, RecursionError):
            return {}
        return parsed if isinstance(parsed, dict) else {}


def inspect(
    source: SourceSpec,
    index: int,
    shard: StoredObject,
    unit_size: UnitSize,
    identities: Identities | None = None,
) -> Inspected:
    """Plan a shard by walking its headers; only members that hold columns are read.

    Raises:
        ShardError: not a plain tar file, or damaged.
        SourceError: no sample has a mapped column.
    """
    named = [source.text, source.image, source.task_column, *source.keep]
    # a name may be a field of the metadata; payloads themselves are not read yet
    columns = {name for name in (source.task_column, *source.keep) if name is not None}
    wanted = columns | {_METADATA} if any(named) else set()
    try:
        with open_object(shard) as stream:
            samples = list(_samples(stream, wanted))
            _demand_end(stream, samples)
    except tarfile.TarError as error:
        raise ShardError(f"{shard.uri} cannot be read as an uncompressed tar: {error}") from error
    _demand_columns(source, samples, shard)
    step = unit_size.rows_of(source, shard.size / max(1, len(samples)))
    found = Inspected(unit_rows=step, id_type=pa.string())
    for first in range(0, len(samples), step):
        chosen = samples[first : first + step]
        after = first + len(chosen)
        stop = samples[after].start if after < len(samples) else shard.size
        found.segments.append(
            Segment(
                source=index,
                shard=shard,
                first_row=first,
                rows=len(chosen),
                span=(chosen[0].start, stop),
            )
        )
        tasks = [_task(source, sample) for sample in chosen]
        found.by_adapter.append(count_adapters(source, tasks))
    if identities is not None:
        known = source.known(_task(source, sample) for sample in samples)
        identities.add([sample.key for sample in samples], known)
    found.kept = {
        name: infer_type([s.value(name) for s in samples], f"source.keep: {name!r}", shard.uri)
        for name in source.keep
    }
    return found


def read(
    source: SourceSpec,
    segment: Segment,
    id_type: pa.DataType,
    kept: Sequence[pa.Field],
    batch_rows: int,
) -> Iterator[pa.Table]:
    """The samples of a segment, in order, a batch at a time."""
    content = read_object(segment.shard.uri, *segment.span)
    samples = list(_samples(io.BytesIO(content), None))
    first = segment.first_row
    for at in range(0, len(samples), batch_rows):
        rows = [_row(source, segment, sample) for sample in samples[at : at + batch_rows]]
        yield to_table(rows, first, id_type, kept)
        first += len(rows)


def _samples(stream: BinaryIO, wanted: set[str] | None) -> Iterator[Sample]:
    """Consecutive members that share a key; `wanted` extensions are read, None for all."""
    sample: Sample | None = None
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            if not member.isfile():
                continue
            directory, name = posixpath.split(member.name)
            stem, _, extension = name.partition(".")
            if not stem or not extension:
                continue
            key = posixpath.join(directory, stem)
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = Sample(key=key, start=member.offset, stop=0)
            sample.stop = archive.offset
            extension = extension.lower()
            sample.members[extension] = None
            if wanted is None or extension in wanted:
                opened = archive.extractfile(member)
                assert opened is not None
                sample.members[extension] = opened.read()
            # the archive keeps every header it has seen
            archive.members.clear()  # type: ignore[attr-defined]
    if sample is not None:
        yield sample


def _demand_end(stream: BinaryIO, samples: list[Sample]) -> None:
    """Refuse a shard that does not end where its samples do.

    The library takes a damaged or missing header for the end, and would pass over what follows.

    Raises:
        TarError: it was cut, is damaged, or holds a second archive behind the first.
    """
    stop = samples[-1].stop if samples else 0
    stream.seek(stop)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.TarError(f"no end-of-archive mark at byte {stop}: it was cut or is damaged")
    while rest := stream.read(1 << 20):
        if any(rest):
            raise tarfile.TarError(f"there is more behind its end-of-archive mark at byte {stop}")


def _row(source: SourceSpec, segment: Segment, sample: Sample) -> SourceRow:
    row = SourceRow(
        locator=f"{segment.shard.uri}#sample={sample.key}",
        id=sample.key,
        task=_task(source, sample),
        kept={name: sample.value(name) for name in source.keep},
    )
    if source.maps_text:
        row.text = _text(sample, source.text or _TEXT)
    if source.maps_image:
        names = (source.image,) if source.image is not None else _IMAGES
        row.image = next(
            (sample.members[name] for name in names if sample.members.get(name) is not None), None
        )
    if row.text is None and row.image is None:
        there = ", ".join(sample.members)
        row.fault = (Reason.NULL_INPUT, f"neither a text nor an image; its members are {there}")
    return row


def _task(source: SourceSpec, sample: Sample) -> str | None:
    if source.task_column is None:
        return source.task_name
    value = sample.value(source.task_column)
    return value.strip() if isinstance(value, str) else None


def _text(sample: Sample, column: str) -> bytes | None:
    content = sample.members.get(column)
    if content is not None:
        return content
    value = sample.metadata.get(column)
    return value.encode(errors="surrogatepass") if isinstance(value, str) else None


def _demand_columns(source: SourceSpec, samples: list[Sample], shard: StoredObject) -> None:
    names = {name: None for sample in samples for name in sample.members}
    fields = {name: None for sample in samples for name in sample.metadata}
    wanted = {"text": source.text, "image": source.image, "task.column": source.task_column}
    pairs = [*wanted.items(), *(("keep", name) for name in source.keep)]
    for key, name in pairs:
        if name is None or not samples or name in names:
            continue
        if name in fields:
            continue
        raise SourceError(
            f"source.{key}: no sample of {shard.uri} has a member or json field {name!r}; they "
            f"have {', '.join([*names, *fields])}"
        )
