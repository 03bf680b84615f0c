"""`nightjar search`: what a text or an image finds, in a snapshot or in a vector store."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.asking import Asker, Named, asking_task
from jobs.printed import brief, printed
from pipeline.dataset import Dataset, open_dataset
from pipeline.errors import CollectionError, SpecError
from pipeline.index.exact import ExactSearch
from pipeline.index.filters import parse_filter
from pipeline.index.layout import IDENTITY, MULTI, SINGLE
from pipeline.index.rows import Snapshot
from pipeline.index.search import Asked, Collection, Searchable, search
from pipeline.index.spec import BackfillSpec
from pipeline.index.store import Hit
from pipeline.index.typed import typed
from pipeline.spec_file import load_spec
from pipeline.storage import use_stores
from pipeline.stores import StoreSpec
from pipeline.tasks import answering

_TYPED = Named(model="--model", version="--version")
_TITLES = ("title", "name", "heading", "subject")
_TEXTS = ("text", "body", "abstract", "content", "description", "summary", "passage")
"""Kept columns that a person reads, the likeliest first."""
_LINES = 2


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What was typed."""

    query: str | None
    """The text; None for an image."""
    image: Path | None
    """The file; None for a text."""
    most: int
    """Documents to print."""
    candidates: int
    """Embeddings that are put in order by their multi-vectors."""
    multi: bool
    """Whether multi-vectors are compared."""
    condition: str | None
    """The filter."""
    task: str | None
    """Of the query; None for the one that fits the rows."""
    model: str | None
    """Where the checkpoint is; None for where the dataset's job says."""

    def question(self) -> str | bytes:
        """The text, or the bytes of the image.

        Raises:
            SpecError: there is not exactly one of them, or the image cannot be read.
        """
        if (self.query is None) == (self.image is None):
            raise SpecError("search: name a query or an --image, and not both")
        if self.image is None:
            if not str(self.query).strip():
                raise SpecError("search: the query is empty")
            return str(self.query)
        try:
            return self.image.read_bytes()
        except OSError as error:
            raise SpecError(f"--image: cannot read {self.image}: {error.strerror}") from None


def run(
    uri: str,
    version: str | None,
    storage: Sequence[StoreSpec],
    wanted: Wanted,
    *,
    as_json: bool,
) -> None:
    """The command.

    Args:
        uri: a dataset's root, or the spec of a backfill for the store that it fills.
        version: a number or a tag; None for the published one.
        storage: how object stores are reached.
        wanted: what was typed.
        as_json: whether the documents are printed as JSON, one a line.
    """
    question = wanted.question()
    condition = None if wanted.condition is None else parse_filter(wanted.condition)
    with _there(uri, version, storage) as (dataset, there):
        if condition is not None:
            condition = typed(condition, there.types)
        adapters = [part.adapter for part in Snapshot.of(dataset).parts]
        task = asking_task(wanted.task, adapters)
        if wanted.task is None and len(set(adapters)) > 1:
            print(f"asked as {task.name}; --task names another", file=sys.stderr)
        has_single = SINGLE in there.vectors
        multi = wanted.multi or not has_single
        if multi and MULTI not in there.vectors:
            raise SpecError(f"--multi: {uri!r} has no multi-vectors")
        model = {} if wanted.model is None else {"path": wanted.model}
        asker = Asker.of(dataset, model, storage, task.adapter, _TYPED)
        found = asker.ask({"search: the query": question}, task, multi)
        asked = Asked(
            single=found.single[0] if has_single else None,
            multi=None if found.multi is None else np.asarray(found.multi[0], np.float32),
            task=task,
            condition=condition,
        )
        hits = search(there, asked, wanted.most, wanted.candidates)
    if as_json:
        for hit in hits:
            print(json.dumps({"score": hit.score} | hit.payload, default=str))
    elif hits:
        _show(hits, "" if wanted.query is None else wanted.query)
    else:
        print(f"nothing found among the rows of {answering(task).name}")


@contextmanager
def _there(
    uri: str, version: str | None, storage: Sequence[StoreSpec]
) -> Iterator[tuple[Dataset, Searchable]]:
    """The dataset, and what is searched."""
    if not uri.endswith((".yaml", ".yml")):
        use_stores(storage)
        dataset = open_dataset(uri, version)
        yield dataset, ExactSearch(Snapshot.of(dataset))
        return
    if version is not None:
        raise SpecError(
            f"--version: {version!r} means nothing for a store, which has the version that it was "
            "filled with; name a dataset, or leave it out"
        )
    spec = load_spec(uri, (), BackfillSpec)
    from jobs.backfill import opened
    from pipeline.index.destination import live_of
    from pipeline.index.layout import layout_of

    with opened(spec) as (snapshot, store):
        live = live_of(store, spec.store.collection, snapshot.dataset)
        if live is None:
            raise CollectionError(
                f"store.collection: {spec.store.collection!r} leads nowhere yet; `nightjar "
                f"backfill {uri}` fills it"
            )
        layout = layout_of(snapshot.schema, spec.store)
        store.demand_fit(live, layout)
        dataset = open_dataset(spec.dataset.uri, spec.dataset.version)
        yield dataset, Collection(store=store, name=live, layout=layout)


def _show(hits: Sequence[Hit], query: str) -> None:
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    for rank, hit in enumerate(hits, start=1):
        row = hit.payload
        title = _first(row, _TITLES)
        name = printed(row["id"])
        head = f"{rank:>3}  {hit.score:6.3f}  "
        shown = name if title is None else f"{brief(title, width - len(head))}"
        print(f"{head}{shown}")
        about = [] if title is None else [name]
        about += [str(row["modality"]), *_others(row)]
        print(f"{'':>13}{brief(' · '.join(about), width - 13)}")
        text = _first(row, _TEXTS)
        if text is not None:
            for line in snippet(str(text), query, width - 13):
                print(f"{'':>13}{printed(line)}")


def _first(row: dict[str, Any], names: Sequence[str]) -> Any:
    """What a person reads first of a row; None for nothing."""
    by_name = {name.lower(): value for name, value in row.items() if name not in IDENTITY}
    return next((by_name[name] for name in names if by_name.get(name)), None)


def _others(row: dict[str, Any]) -> list[str]:
    """The other columns of a row, in short."""
    passed = {*IDENTITY, *_TITLES, *_TEXTS}
    return [
        f"{printed(name)}: {brief(value, 40)}"
        for name, value in row.items()
        if name.lower() not in passed and value is not None
    ]


def snippet(text: str, query: str, width: int) -> list[str]:
    """A few lines of a text, from where words of the query are.

    Args:
        text: any.
        query: "" for none.
        width: characters of a line.
    """
    plain = " ".join(text.split())
    lowered = plain.lower()
    words = [word for word in query.lower().split() if len(word) > 2]
    places = [at for word in words if (at := lowered.find(word)) >= 0]
    room = _LINES * width
    start = max(0, min(places, default=0) - width // 4)
    if start + room > len(plain):
        start = max(0, len(plain) - room)
    if start:
        # from the next word on
        start = plain.find(" ", start) + 1 or start
    cut = plain[start : start + room]
    marked = ("… " if start else "") + cut
    if start + room < len(plain):
        marked = marked[: room - 2].rsplit(" ", 1)[0] + " …"
    return [marked[at : at + width].strip() for at in range(0, len(marked), width)][:_LINES]
