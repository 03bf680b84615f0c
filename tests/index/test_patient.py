"""A store that is busy is asked again: for every call, and no longer than the spec's patience."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pipeline.errors import StoreFailed
from pipeline.index.layout import POINT, SINGLE, Layout
from pipeline.index.patient import Patient
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.store import Busy, Question
from tests.index.conftest import Place
from tests.index.corpus import Corpus, names


@pytest.fixture
def kind() -> str:
    return "pgvector"


@pytest.fixture
def snapshot(corpus: Corpus) -> Snapshot:
    corpus.add(names(20))
    return corpus.commit()


@pytest.fixture
def layout(place: Place, snapshot: Snapshot) -> Layout:
    return place.layout(snapshot)


def _drop_connections(place: Place) -> None:
    """The server ends all others: their next call fails."""
    with psycopg.connect(place.spec.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_every_call_is_made_again_when_its_connection_is_lost(
    place: Place, snapshot: Snapshot, layout: Layout, corpus: Corpus
) -> None:
    store = place.store
    rows = Rows(part=snapshot.parts[0])
    points = snapshot.points([rows], layout, 1, None).table
    some = points[POINT].combine_chunks()
    query = corpus.living()[0]["embedding"][None]
    question = Question(using=SINGLE, vectors=query, most=3)
    place.fill(snapshot)
    calls: list[tuple[Callable[[], Any], Callable[[Any], bool]]] = [
        (lambda: store.owner("docs_1"), lambda found: found == snapshot.dataset),
        (lambda: store.create("docs_2", layout, "0" * 32), lambda _: store.count("docs_2") == 0),
        (lambda: store.demand_fit("docs_1", layout), lambda _: True),
        (lambda: store.count("docs_1"), lambda found: found == 20),
        (lambda: list(store.scan("docs_1")), lambda found: sum(map(len, found)) == 20),
        (lambda: store.fetch("docs_1", layout, [some[0].as_py()]), lambda found: len(found) == 1),
        (lambda: store.settle("docs_1", layout), lambda _: True),
        (lambda: store.search("docs_1", layout, question), lambda found: len(found) == 3),
        (lambda: store.live("docs"), lambda found: found == "docs_1"),
        (lambda: store.lead("docs", "docs_2"), lambda _: store.live("docs") == "docs_2"),
        (lambda: store.delete("docs_1", some[:5], 1), lambda _: store.count("docs_1") == 15),
        (lambda: store.drop("docs_1"), lambda _: store.owner("docs_1") is None),
    ]
    for call, is_right in calls:
        _drop_connections(place)
        assert is_right(call())


class _Busy:
    """A store that is never there."""

    bounds = None

    def __init__(self, retry_after: float | None) -> None:
        self.asked = 0
        self._retry_after = retry_after

    def count(self, collection: str) -> int:
        self.asked += 1
        raise Busy("down", self._retry_after)


def test_a_store_that_stays_busy_is_given_up() -> None:
    busy: Any = _Busy(0.01)
    with pytest.raises(StoreFailed, match=r"longer than store\.feed\.patience, 0\.2 s: down"):
        Patient(busy, 0.2).count("docs")
    assert busy.asked > 3


def test_what_a_store_asks_to_wait_is_waited_or_given_up_at_once() -> None:
    busy: Any = _Busy(60.0)
    with pytest.raises(StoreFailed):
        Patient(busy, 5.0).count("docs")
    assert busy.asked == 1


def test_a_collection_that_a_lost_try_made_is_made_anew(
    place: Place, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = place.store._store  # type: ignore[attr-defined]
    create, tries = type(made).create, []

    def lost(*arguments: Any) -> None:
        tries.append(create(made, *arguments))
        if len(tries) == 1:
            raise Busy("the answer was lost", 0.0)

    monkeypatch.setattr(made, "create", lost)
    place.store.create("docs_1", layout, "0" * 32)
    assert len(tries) == 2
    assert place.store.count("docs_1") == 0
