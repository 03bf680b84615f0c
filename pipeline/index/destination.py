"""The destination of a backfill: which collection is written to, and what it is known to hold.

One that holds an earlier snapshot of the same generation is brought up in place. Another generation
(vectors of two models must never be in one collection) and another layout need a new collection.
What the store says of its alias counts, and not what was written down before a process died.
"""

from contextlib import suppress
from dataclasses import dataclass, replace

from pipeline.errors import CollectionError
from pipeline.index.history import Entry, Held, Step
from pipeline.index.layout import Layout
from pipeline.index.rows import Snapshot
from pipeline.index.spec import VectorStoreSpec
from pipeline.index.store import VectorStore

_NOTHING = Entry(
    run=0, step=Step.APPLIED, target=0, collection="", live=None, previous=None, held={}
)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A collection."""

    collection: str
    """Its name."""
    held: Held | None
    """What it holds; None for one that is to be made."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a snapshot may go."""

    snapshot: Snapshot
    """What is to be held."""
    spec: VectorStoreSpec
    """Of the collection."""
    layout: Layout
    """Of its points."""
    store: VectorStore
    """Connected."""
    newest: Entry
    """The newest step of its history."""
    live: str | None
    """The collection that readers get; None for none."""

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        spec: VectorStoreSpec,
        layout: Layout,
        store: VectorStore,
        newest: Entry | None,
    ) -> "Destination":
        """What there is.

        Raises:
            CollectionError: the alias leads to what is not ours.
        """
        return cls(
            snapshot=snapshot,
            spec=spec,
            layout=layout,
            store=store,
            newest=newest or _NOTHING,
            live=live_of(store, spec.collection, snapshot.dataset),
        )

    def demand_newer(self) -> None:
        """Refuse to replace a newer snapshot.

        Raises:
            CollectionError: the collection holds one, or is being filled with one.
        """
        held = self.newest.held.get(str(self.live))
        there = [self.newest.target] if self.newest.step is Step.BEGUN else []
        there += [held.version] if held is not None and held.version is not None else []
        if there and max(there) > self.snapshot.version:
            raise CollectionError(
                f"dataset.version: {self.snapshot.version} is older than version {max(there)}, "
                f"which {self.spec.collection!r} holds, or is being filled with; `--older` "
                "replaces it all the same"
            )

    def is_up_to_date(self) -> bool:
        """Whether readers have the snapshot already, as far as can be told without a scan."""
        held = self.newest.held.get(str(self.live))
        return (
            self._is_settled()
            and held is not None
            and held.version == self.snapshot.version
            and held.layout == self.layout
            and self.store.count(str(self.live)) == held.points
        )

    def choose(self, beside: bool) -> Chosen:
        """The collection to be written to.

        Args:
            beside: whether it has to be a new one.

        Raises:
            CollectionError: the one that readers get is not of the layout that it was made with.
        """
        if self._was_being_filled():
            # a new one, not yet given to readers, is gone on with
            return Chosen(
                collection=self.newest.collection, held=self.newest.held[self.newest.collection]
            )
        if self.live is not None and not beside:
            held = self.newest.held.get(self.live, self._unknown())
            if self._fits(held):
                self.store.demand_fit(self.live, self.layout)
                known = held if self._is_settled() else replace(held, version=None)
                return Chosen(collection=self.live, held=known)
        return Chosen(collection=self._free_name(), held=None)

    def begun(self, chosen: Chosen) -> Entry:
        """The step with which a backfill of the chosen collection begins."""
        before = self.newest
        # one that was killed between the alias and its last step has given readers another
        was_led = before.live not in (None, self.live)
        previous = before.live if was_led else before.previous
        kept = {name: held for name, held in before.held.items() if name in (self.live, previous)}
        there = {chosen.collection, *kept}
        return before.next(
            Step.BEGUN,
            target=self.snapshot.version,
            collection=chosen.collection,
            live=self.live,
            previous=previous,
            held=kept | {chosen.collection: self._unknown()},
            doomed=sorted({*before.held, *before.doomed} - there),
            rejected=0,
        )

    def _was_being_filled(self) -> bool:
        name = self.newest.collection
        if self.newest.step is not Step.BEGUN or name == self.live:
            return False
        is_ours = self.store.owner(name) == self.snapshot.dataset
        return is_ours and self._fits(self.newest.held[name])

    def _is_settled(self) -> bool:
        """Whether it is known what the collections hold."""
        return self.newest.step is not Step.BEGUN and not self.newest.rejected

    def _fits(self, held: Held) -> bool:
        """Whether a collection may be brought up in place."""
        is_of_generation = held.fingerprint == self.snapshot.entry.fingerprint
        return is_of_generation and held.layout == self.layout

    def _unknown(self) -> Held:
        return Held(
            version=None,
            fingerprint=self.snapshot.entry.fingerprint,
            points=0,
            layout=self.layout,
        )

    def _free_name(self) -> str:
        number = self.newest.run + 1
        while True:
            name = f"{self.spec.collection}_{number}"
            with suppress(CollectionError):
                if self.store.owner(name) is None:
                    return name
            number += 1


def live_of(store: VectorStore, alias: str, dataset: str) -> str | None:
    """The collection that readers get by an alias; None where there is none, or it is gone.

    Raises:
        CollectionError: it was not filled from this dataset.
    """
    live = store.live(alias)
    owner = None if live is None else store.owner(live)
    if owner is None:
        return None
    if owner != dataset:
        raise CollectionError(
            f"store.collection: {alias!r} leads to {live!r}, which was not filled from this "
            "dataset; choose another name"
        )
    return live
