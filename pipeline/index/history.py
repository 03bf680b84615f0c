"""The history of a collection: which snapshot it holds, and which backfill may write to it.

    <root>/backfills/<sink>/<20 digits>.json    create-only, contiguous, sealed

An entry is the whole state. A backfill begins with one and ends with the next, so of two that begin
at once one is told, and one that goes on after another has begun finds that its next number is
taken. What the store itself says of its alias counts more than what was written here before a
process died.
"""

import dataclasses
import datetime
import hashlib
import json
import uuid
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError, Superseded
from pipeline.folder import Folder, settle
from pipeline.index.layout import Layout
from pipeline.index.spec import VectorStoreSpec
from pipeline.sealed import seal, unseal

BACKFILLS = "backfills"


class Step(StrEnum):
    """What an entry tells."""

    BEGUN = "begun"
    """A backfill writes to a collection, which holds nobody knows what."""
    APPLIED = "applied"
    """It has ended, and readers get its collection."""
    ROLLED_BACK = "rolled back"
    """Readers get the collection before."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A collection."""

    version: int | None
    """The snapshot that it holds, no more and no less; None while that is not known."""
    fingerprint: str
    """Of the embeddings that it holds."""
    points: int
    """How many it has."""
    layout: Layout
    """Of its points."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One step."""

    run: int
    """Its number, from 1; points carry that of the step with which their backfill began."""
    step: Step
    """What it is."""
    target: int
    """The snapshot that was to be held, or is."""
    collection: str
    """That it was written to, or that readers were given back."""
    live: str | None
    """The collection that readers get, as far as was known; None for none."""
    previous: str | None
    """The one that they got before, kept for a rollback; None for none."""
    held: dict[str, Held]
    """By collection, all that were filled and not dropped."""
    doomed: list[str] = field(default_factory=list)
    """Collections to be dropped."""
    rejected: int = 0
    """Points that the store refused."""
    commit_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Made up by whoever wrote it, to know its own entry again."""
    created_at: str = field(default_factory=lambda: _now())
    """By the writer's clock, UTC; nothing is decided by it."""

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        held = {
            name: asdict(one) | {"layout": one.layout.to_plain()} for name, one in self.held.items()
        }
        return asdict(self) | {"held": held}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Entry":
        """The entry that was made so.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        held = {
            name: Held(**one | {"layout": Layout.from_plain(one["layout"])})
            for name, one in plain["held"].items()
        }
        return cls(**plain | {"step": Step(plain["step"]), "held": held})

    def next(self, step: Step, **changed: Any) -> "Entry":
        """The step after this one."""
        return dataclasses.replace(
            self,
            run=self.run + 1,
            step=step,
            commit_id=uuid.uuid4().hex,
            created_at=_now(),
            **changed,
        )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class History:
    """The steps of one collection of a dataset."""

    def __init__(self, folder: Folder, store: VectorStoreSpec) -> None:
        """Open it; nothing need be there.

        Args:
            folder: the dataset's root.
            store: of which only counts where it is.
        """
        self._folder = folder
        self._place = f"{BACKFILLS}/{_sink(store)}"

    def newest(self) -> Entry | None:
        """The newest step; None when there is none.

        Raises:
            OutputError: it is damaged.
        """
        names = (name.removesuffix(".json") for name in self._folder.names(self._place))
        return self.read(max((int(name) for name in names if name.isdecimal()), default=0))

    def read(self, run: int) -> Entry | None:
        """The step of a number; None when there is none.

        Raises:
            OutputError: it is damaged.
        """
        path = self._path(run)
        try:
            return self._parsed(path, self._folder.get(path))
        except FileNotFoundError:
            return None

    def append(self, entry: Entry) -> Entry:
        """Write the next step.

        Raises:
            Superseded: somebody else has.
        """
        path = self._path(entry.run)
        data = seal(entry.to_plain(), indent=1).encode()
        if self._parsed(path, settle(self._folder, path, data)).commit_id != entry.commit_id:
            raise superseded(self._folder)
        return entry

    def demand_newest(self, entry: Entry) -> None:
        """Refuse to go on where somebody has written a step after this one.

        Raises:
            Superseded: somebody has.
        """
        if self.read(entry.run + 1) is not None:
            raise superseded(self._folder)

    def _path(self, run: int) -> str:
        return f"{self._place}/{run:020}.json"

    def _parsed(self, path: str, data: bytes) -> Entry:
        try:
            return Entry.from_plain(unseal(data))
        except (ValueError, TypeError, KeyError) as error:
            raise OutputError(f"{self._folder.uri}/{path} is damaged: {error}") from error


def superseded(folder: Folder) -> Superseded:
    """Another backfill has begun."""
    return Superseded(
        f"{folder.uri!r}: another backfill of the same collection has begun meanwhile; this one "
        "has stopped, and what it wrote is made right by that one"
    )


def _sink(store: VectorStoreSpec) -> str:
    """Names where a collection is, as 16 hexadecimal digits."""
    is_path = "://" not in store.url and not store.url.startswith(":")
    url = str(Path(store.url).expanduser().resolve()) if is_path else store.url.rstrip("/")
    named = json.dumps([store.kind, url, store.collection])
    return hashlib.sha256(named.encode()).hexdigest()[:16]
