"""Which rows of a corpus say that they are the same.

What names an embedding is its row's id and task: the same document may be embedded for a query and
for a passage, but not twice for one of them. Ids are hashed to 64 bits while shards are planned, 8
bytes a row in memory; hashes that meet are looked up again as ids, so a hash is never the reason
for which a source is refused.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks import find_task

_PARTS = 16
"""Of the range of hashes, looked at one after another. To put all hashes in order at once would
take two more copies of them; so it is an eighth of one."""
_NOBODY = 0
"""Of a row that is quarantined anyway, because it has no id or no known task."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A row under suspicion."""

    id: Any
    """As in the source."""
    task: str
    """Of the row."""
    row: int
    """Its number in the shard."""


@dataclass(kw_only=True)
class Identities:
    """The rows of one shard, in order."""

    suspects: Collection[int] = ()
    """Hashes whose rows are named."""
    named: list[Named] = field(default_factory=list)
    """Those rows."""
    _parts: list[NDArray[np.uint64]] = field(default_factory=list)
    _count: int = 0

    def add(self, ids: Iterable[Any], tasks: Iterable[str | None] | str) -> None:
        """Add rows; one task for all of them, or one for each."""
        each = zip(ids, repeat(tasks)) if isinstance(tasks, str) else zip(ids, tasks, strict=True)
        pairs = list(each)
        found = np.fromiter((_hash(*pair) for pair in pairs), np.uint64, len(pairs))
        if self.suspects:
            for at in np.flatnonzero(np.isin(found, list(self.suspects))).tolist():
                value, task = pairs[at]
                self.named.append(Named(id=value, task=task or "", row=self._count + at))
        self._parts.append(found)
        self._count += len(pairs)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """Of all rows, [rows]; 0 for those that name no embedding."""
        return np.concatenate([np.empty(0, np.uint64), *self._parts])


def repeated(hashes: Sequence[NDArray[np.uint64]]) -> set[int]:
    """The hashes that are there more than once."""
    found: set[int] = set()
    for part in range(_PARTS):
        first, last = (np.uint64(2**64 // _PARTS * (part + i) - i) for i in (0, 1))
        chosen = [some[(some >= first) & (some <= last)] for some in hashes]
        ordered = np.concatenate([np.empty(0, np.uint64), *chosen])
        ordered.sort()
        found.update(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    return found - {_NOBODY}


def same(named: Iterable[tuple[str, Named]]) -> dict[tuple[str, str], list[str]]:
    """The places of each (id, task) that is there more than once.

    Args:
        named: rows, each with its shard.
    """
    places: defaultdict[tuple[bytes, str], list[tuple[str, str]]] = defaultdict(list)
    for shard, row in named:
        places[_plain(row.id), row.task].append((repr(row.id), f"{shard} row {row.row}"))
    return {
        (found[0][0], task): [place for _, place in found]
        for (_, task), found in places.items()
        if len(found) > 1
    }


def _hash(value: Any, task: str | None) -> int:
    if value is None or task is None or find_task(task) is None:
        return _NOBODY
    digest = blake2b(task.encode() + b"\0" + _plain(value), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def _plain(value: Any) -> bytes:
    """An id as bytes, so that no two values are the same: 1 and "1" are two."""
    match value:
        case str():
            return b"s" + value.encode(errors="surrogatepass")
        case bytes():
            return b"b" + value
        case _:
            return f"{type(value).__name__} {value!r}".encode()
