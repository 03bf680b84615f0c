"""Before: what the last snapshot holds, for those who carry it and for those who mend it.

A night refuses a snapshot of which a file is missing or cut, since what it carries is not looked at
again. A retry is what that refusal points to: it leaves out the files that are lost, and has the
shards that lack one compared row by row, so that their rows are embedded again. Rows that no shard
has any more cannot be: a snapshot that lacks one of those is refused all the same.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from pipeline.dataset import demand_there, lost_files
from pipeline.errors import SpecError
from pipeline.folder import Folder
from pipeline.log import LogEntry
from pipeline.manifest import VECTORS, Manifest, Part, Shard, read_manifest
from pipeline.schema import difference


@dataclass(frozen=True, kw_only=True)
class Before:
    """A snapshot to go on from."""

    manifest: Manifest
    """Of all whose files are there."""
    lacking: frozenset[str] = frozenset()
    """Keys of the shards of which others are lost."""

    @classmethod
    def whole(cls, folder: Folder, entry: LogEntry | None) -> Self:
        """The snapshot of an entry, all of it; one without anything for None.

        Raises:
            OutputError: a file is missing or cut.
        """
        if entry is None:
            return cls(manifest=Manifest.of((), ()))
        demand_there(folder, entry)
        return cls(manifest=read_manifest(folder, entry.manifest))

    @classmethod
    def mended(cls, folder: Folder, entry: LogEntry | None, shards: Collection[str]) -> Self:
        """What of the snapshot of an entry is there.

        Args:
            folder: the dataset's root.
            entry: of the snapshot; None for none.
            shards: keys of those that can be read again.

        Raises:
            OutputError: a file with rows of others is missing or cut.
        """
        if entry is None:
            return cls.whole(folder, None)
        manifest = read_manifest(folder, entry.manifest)
        lost = lost_files(folder, manifest).keys()
        if not lost:
            return cls(manifest=manifest)
        there: list[Part] = []
        lacking: set[str] = set()
        for part in manifest.parts():
            if part.file.path not in lost and lost.isdisjoint(part.refers):
                there.append(part)
            elif part.kind != VECTORS:
                lacking.add(part.shard)
        if not lacking <= set(shards):
            demand_there(folder, entry)
        return cls(manifest=Manifest.of(manifest.shards, there), lacking=frozenset(lacking))

    def unchanged(self, shards: Iterable[Shard]) -> set[str]:
        """Keys of those shards that are as they were, and of which nothing is lost."""
        known = {(shard.key, shard.size, shard.etag) for shard in self.manifest.shards}
        as_they_were = {s.key for s in shards if (s.key, s.size, s.etag) in known}
        return as_they_were - self.lacking


def demand_same_types(schema: pa.Schema, newest: LogEntry | None, kept: int) -> None:
    """Refuse to keep rows whose columns are of other types than those of the source by now.

    Raises:
        SpecError: says which.
    """
    differs = None if newest is None else difference(schema, newest.row_schema)
    if kept and differs is not None:
        raise SpecError(
            f"nightly.on_gone: keep, but {kept:,} rows that are gone from the source have other "
            f"columns than it has now ({differs}); use delete, or another output.uri"
        )
