"""Counts: what a night found, in numbers for people."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a night found, in items: a row with a text and an image is two."""

    carried: int = 0
    """In the snapshot before, and as they were."""
    new: int = 0
    """Of a name (id, task, modality) that the snapshot before has not."""
    changed: int = 0
    """Of a name that it has, with other content."""
    updated: int = 0
    """Of a name that it has, with the same content, and other kept columns or another shard."""
    gone: int = 0
    """Of the snapshot before, with a name that the source has not."""

    def __add__(self, other: "Counts") -> "Counts":
        names = [field.name for field in fields(self)]
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})


def count(left: pa.Table, extra: pa.Table, carried: int) -> Counts:
    """What a comparison left of each side, told apart by name.

    Args:
        left: items of the source that the snapshot has not.
        extra: rows of the snapshot that the source has not.
        carried: how many rows of the snapshot the source has.
    """
    before = dict(zip(extra["name"].to_pylist(), extra["content"].to_pylist(), strict=True))
    names = left["name"].to_pylist()
    known = [(before[name], content) for name, content in _named(left) if name in before]
    updated = sum(then == now for then, now in known)
    return Counts(
        carried=carried,
        new=len(names) - len(known),
        changed=len(known) - updated,
        updated=updated,
        gone=len(before.keys() - set(names)),
    )


def _named(table: pa.Table) -> Iterator[tuple[bytes, bytes]]:
    return zip(table["name"].to_pylist(), table["content"].to_pylist(), strict=True)
