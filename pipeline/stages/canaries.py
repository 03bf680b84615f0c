"""Canaries: fixed items, embedded by every worker, and compared with what others made of them.

    <root>/canaries/<fingerprint 8>/<adapter>-<items>.arrow      create-only: their vectors

The weights were held against their sha256 when they were loaded, and every vector is looked at
before it is written; what neither sees is a device that computes something else: a kernel that is
wrong on one kind of host, a bit that has flipped since, a merge that went wrong. So all canaries
are embedded before the first unit of an adapter, after every unit that is large beside them, and
after every 16th; after each other unit one of them is, in turn. That is done before what the worker
made of the unit is handed on. The first worker of a generation has nobody to be compared with: its
vectors are the ones that the others are held against, and they say who made them.
"""

import hashlib
import io
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import CanaryDrift, OutputError
from pipeline.folder import Folder, settle
from pipeline.log import generation
from pipeline.model.outputs import Embeddings
from pipeline.model.processor import PreparedItem
from pipeline.soundness import of_unit_length

CANARIES = "canaries"
ALL_EVERY = 16
"""Units between two looks at all canaries, whatever their size."""
_LARGE = 50
"""How many times the tokens of all canaries a unit has that is worth a look at all of them."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}
"""The largest distance, 1 - cosine, between two hosts, by what the network computes in. With the
tiny checkpoint bfloat16 is 3e-4 from float32 at most, and another adapter 0.4 at least; the rest is
room for a network of 36 layers."""

EmbedItems = Callable[[Sequence[PreparedItem], str], Embeddings]
"""Embeds items with an adapter, and repairs nothing."""
_Vectors = dict[tuple[str, str], NDArray[np.float32]]
"""[vectors, size] by canary and kind."""

_SCHEMA = pa.schema(
    [
        pa.field("canary", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("size", pa.int32()),
        pa.field("values", pa.list_(pa.float32())),
    ]
)
_MAKER = b"maker"


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What canaries are held against."""

    name: str
    """Where it is, below the dataset's root."""
    maker: str
    """Who made it."""
    vectors: _Vectors
    """As they were."""


@dataclass(kw_only=True)
class Canaries:
    """The canaries of one worker. Threads may look at them at once."""

    folder: Folder
    """The dataset's root."""
    fingerprint: str
    """Of every embedding."""
    items: Callable[[str], Mapping[str, PreparedItem]]
    """The canaries of an adapter, by name."""
    tolerance: float
    """The largest distance, 1 - cosine, from what is stored."""
    device: str
    """As a person would call it."""
    actor: str | None = None
    """Its id, in a cluster."""
    _items: dict[str, Mapping[str, PreparedItem]] = field(default_factory=dict)
    _stored: dict[str, _Stored] = field(default_factory=dict)
    _units: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, adapter: str, embed: EmbedItems) -> None:
        """Look at all of them, the first time that an adapter is used.

        Raises:
            CanaryDrift: a vector is not what others made of it.
        """
        with self._lock:
            if adapter in self._stored:
                return
            items = self.items(adapter)
            found = _vectors(items, adapter, embed)
            stored = self._settled(adapter, items, found)
            self._compare(adapter, found, stored)
            # only then: another thread must not pass by what this one has found
            self._items[adapter], self._stored[adapter] = items, stored

    def after(self, adapter: str, tokens: int, embed: EmbedItems) -> None:
        """Look at one of them, or at all, after a unit and before it is handed on.

        Args:
            adapter: of the unit.
            tokens: of the unit.
            embed: what looks.

        Raises:
            CanaryDrift: a vector is not what it was.
        """
        with self._lock:
            items, unit = self._items[adapter], self._units[adapter]
            self._units[adapter] += 1
            is_large = tokens >= _LARGE * sum(len(item.token_ids) for item in items.values())
            if not is_large and self._units[adapter] % ALL_EVERY:
                name = list(items)[unit % len(items)]
                items = {name: items[name]}
            self._compare(adapter, _vectors(items, adapter, embed), self._stored[adapter])

    def _compare(self, adapter: str, found: _Vectors, stored: _Stored) -> None:
        for name, kind in sorted(found.keys() & stored.vectors.keys()):
            # one that once did not fit the memory of somebody is not there
            distance = _distance(found[name, kind], stored.vectors[name, kind])
            # NaN is not below anything
            if not distance <= self.tolerance:
                raise CanaryDrift(
                    f"the {kind} vectors of the canary {name!r}, adapter {adapter}, are "
                    f"{distance:.2g} from what they were ({self.tolerance:g} is allowed): "
                    f"{self._maker()} does not compute what others did; nothing was committed; "
                    "take it out of the cluster, and run the same command again; if it is right, "
                    f"{stored.maker} was wrong: then delete {self.folder.uri}/{stored.name}"
                )

    def _maker(self) -> str:
        actor = f"actor {self.actor}, " if self.actor is not None else ""
        return f"{actor}process {os.getpid()} on host {socket.gethostname()}, {self.device},"

    def _settled(self, adapter: str, items: Mapping[str, PreparedItem], found: _Vectors) -> _Stored:
        """The vectors that count: those that were stored first."""
        made = hashlib.sha256()
        for item in items.values():
            made.update(item.token_ids.tobytes())
            made.update(b"" if item.pixels is None else item.pixels.tobytes())
        place = f"{CANARIES}/{generation(self.fingerprint)}"
        name = f"{place}/{adapter}-{made.hexdigest()[:32]}.arrow"
        if all(of_unit_length(vectors).all() for vectors in found.values()):
            data = settle(self.folder, name, _spelled(found, self._maker()))
        else:
            # what is wrong at first sight is not for others to be held against
            nothing = {which: np.full_like(some, np.nan) for which, some in found.items()}
            data = _spelled(nothing, self._maker())
        try:
            vectors, maker = _parsed(data)
        except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
            raise OutputError(f"{self.folder.uri}/{name} is damaged: {error}") from error
        return _Stored(name=name, maker=maker, vectors=vectors)


def _vectors(items: Mapping[str, PreparedItem], adapter: str, embed: EmbedItems) -> _Vectors:
    """What a device makes of canaries, but for those that do not fit its memory."""
    found = embed(list(items.values()), adapter)
    vectors: _Vectors = {}
    for at, name in enumerate(items):
        if at in found.faults:
            continue
        kinds = {f"single {size}": one[at : at + 1] for size, one in found.singles.items()}
        if found.multi is not None:
            kinds["multi"] = found.multi[at]
        vectors |= {(name, kind): some.astype(np.float32) for kind, some in kinds.items()}
    return vectors


def _distance(vectors: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    """The largest 1 - cosine between two vectors at one place, [vectors, size] each."""
    if vectors.shape != stored.shape:
        return np.inf
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(stored, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.einsum("nd,nd->n", vectors, stored) / lengths
    return float(np.max(1 - cosines))


def _spelled(found: _Vectors, maker: str) -> bytes:
    rows = [
        {"canary": name, "kind": kind, "size": some.shape[1], "values": some.reshape(-1)}
        for (name, kind), some in found.items()
    ]
    schema = _SCHEMA.with_metadata({_MAKER: maker})
    stream = io.BytesIO()
    with pa.ipc.new_file(stream, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return stream.getvalue()


def _parsed(data: bytes) -> tuple[_Vectors, str]:
    """The vectors, and who made them."""
    with pa.ipc.open_file(pa.py_buffer(data)) as file:
        table = file.read_all()
    vectors = {
        (row["canary"], row["kind"]): np.array(row["values"], np.float32).reshape(-1, row["size"])
        for row in table.to_pylist()
    }
    return vectors, table.schema.metadata[_MAKER].decode()
