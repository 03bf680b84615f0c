"""What every vector store must do, held against the real engine of each."""

import threading
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import CollectionError
from pipeline.index.audit import deviations
from pipeline.index.exact import ExactSearch
from pipeline.index.filters import parse_filter
from pipeline.index.layout import MULTI, POINT, RUN, SINGLE, STAMP, Layout
from pipeline.index.points import point_ids
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.scoring import maxsim
from pipeline.index.store import Question
from pipeline.index.typed import typed
from tests.index.conftest import Place
from tests.index.corpus import DIM, MULTI_DIM, Corpus, by_id, names

OWNER = uuid.uuid4().hex


def _points(place: Place, snapshot: Snapshot, run: int = 1) -> pa.Table:
    tables = [
        snapshot.points([Rows(part=part)], place.layout(snapshot), run, None).table
        for part in snapshot.parts
    ]
    return pa.concat_tables(tables)


@pytest.fixture
def snapshot(corpus: Corpus) -> Snapshot:
    corpus.add(names(60))
    return corpus.commit()


@pytest.fixture
def layout(place: Place, snapshot: Snapshot) -> Layout:
    return place.layout(snapshot)


@pytest.fixture
def filled(place: Place, snapshot: Snapshot, layout: Layout) -> str:
    """A collection with all points of the snapshot."""
    place.store.create("docs_1", layout, OWNER)
    place.store.load("docs_1", _points(place, snapshot))
    place.store.settle("docs_1", layout)
    return "docs_1"


def _scanned(place: Place, collection: str) -> pa.Table:
    return pa.concat_tables(place.store.scan(collection))


def _ask(
    place: Place, collection: str, layout: Layout, vectors: Any, using: Any = SINGLE, **more: Any
) -> list[tuple[str, float]]:
    asked = np.atleast_2d(np.asarray(vectors, np.float32))
    question = Question(using=using, vectors=asked, **{"most": 10} | more)
    hits = place.store.search(collection, layout, question)
    return [(hit.payload["id"], hit.score) for hit in hits]


def test_a_collection_that_was_made_is_owned_and_one_that_was_not_is_not_there(
    place: Place, layout: Layout
) -> None:
    assert place.store.owner("docs_1") is None
    place.store.create("docs_1", layout, OWNER)
    assert place.store.owner("docs_1") == OWNER
    assert place.store.count("docs_1") == 0
    with pytest.raises(CollectionError, match="docs_1"):
        place.store.create("docs_1", layout, OWNER)
    place.store.drop("docs_1")
    assert place.store.owner("docs_1") is None
    place.store.drop("docs_1")


def test_everything_that_was_written_is_read_back(
    place: Place, snapshot: Snapshot, layout: Layout, filled: str
) -> None:
    assert place.store.count(filled) == 60
    wanted = _points(place, snapshot)
    found = place.store.fetch(filled, layout, wanted[POINT].to_pylist()[:20])
    assert found.schema.equals(layout.schema)
    plain = [name for name in layout.schema.names if name not in layout.vectors]
    there = {row[POINT]: row for row in found.select(plain).to_pylist()}
    assert there == {row[POINT]: row for row in wanted.select(plain).slice(0, 20).to_pylist()}
    rows = [Rows(part=part) for part in snapshot.parts]
    looked = list(deviations(place.store, filled, snapshot, layout, rows, None))
    # stamps and vectors too
    assert [found for _, found in looked] == [[]]


def test_a_scan_names_every_point_once_with_its_stamp(
    place: Place, snapshot: Snapshot, filled: str
) -> None:
    found, wanted = _scanned(place, filled), _points(place, snapshot)
    pairs = [tuple(row.values()) for row in found.select([POINT, STAMP]).to_pylist()]
    assert sorted(pairs) == sorted(
        tuple(row.values()) for row in wanted.select([POINT, STAMP]).to_pylist()
    )


def test_points_that_are_written_again_are_there_once(
    place: Place, snapshot: Snapshot, filled: str
) -> None:
    for _ in range(2):
        place.store.upsert(filled, _points(place, snapshot, run=2))
    assert place.store.count(filled) == _scanned(place, filled).num_rows == 60


def test_a_point_is_replaced_whole(
    place: Place, corpus: Corpus, snapshot: Snapshot, layout: Layout, filled: str
) -> None:
    (path,) = corpus.parts
    corpus.bury(path, 7)
    corpus.add(["doc-7"], salt=1, title=None)
    after = corpus.commit()
    rows = [Rows(part=part) for part in after.parts]
    place.store.upsert(filled, after.points([rows[1]], layout, 2, None).table)
    assert place.store.count(filled) == 60
    looked = deviations(place.store, filled, after, layout, rows, None)
    assert [found for _, found in looked] == [[], []]


def test_an_earlier_run_neither_overwrites_nor_deletes_what_a_later_one_wrote(
    place: Place, snapshot: Snapshot, layout: Layout, filled: str
) -> None:
    newer = _points(place, snapshot, run=9).slice(0, 1)
    place.store.upsert(filled, newer)
    older = newer.set_column(1, layout.schema.field(STAMP), pa.array([1], pa.int64()))
    older = older.set_column(2, layout.schema.field(RUN), pa.array([8], pa.int64()))
    place.store.upsert(filled, older)
    place.store.delete(filled, newer[POINT].combine_chunks(), 8)
    (row,) = place.store.fetch(filled, layout, newer[POINT].to_pylist()).to_pylist()
    assert (row[RUN], row[STAMP]) == (9, newer[STAMP][0].as_py())
    place.store.delete(filled, newer[POINT].combine_chunks(), 9)
    assert place.store.count(filled) == 59


def test_points_are_deleted_by_name_and_those_that_are_not_there_are_no_fault(
    place: Place, snapshot: Snapshot, filled: str
) -> None:
    points = _points(place, snapshot)[POINT].combine_chunks()
    for _ in range(2):
        place.store.delete(filled, points.slice(0, 25), 1)
    assert place.store.count(filled) == 35
    assert not set(_scanned(place, filled)[POINT].to_pylist()) & set(points[:25].to_pylist())


def test_the_search_of_single_vectors_is_exact(
    place: Place, corpus: Corpus, layout: Layout, filled: str
) -> None:
    rows = corpus.living()
    vectors = np.stack([row["embedding"] for row in rows])
    for seed in range(5):
        query = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
        query /= np.linalg.norm(query)
        scores = vectors @ query
        best = np.argsort(-scores)[:10]
        found = _ask(place, filled, layout, query)
        assert [name for name, _ in found] == [rows[n]["id"] for n in best]
        np.testing.assert_allclose([score for _, score in found], scores[best], atol=1e-4)


def test_the_search_of_multi_vectors_is_our_maxsim(
    place: Place, corpus: Corpus, layout: Layout, filled: str
) -> None:
    if layout.multi is None:
        assert place.spec.kind == "milvus"
        return
    rows = corpus.living()
    side_by_side = np.concatenate([np.stack(row["multivector"]) for row in rows])
    lengths = np.array([len(row["multivector"]) for row in rows])
    for seed in range(5):
        query = np.random.default_rng(seed).standard_normal((4, MULTI_DIM)).astype(np.float32)
        query /= np.linalg.norm(query, axis=1, keepdims=True)
        scores = maxsim(query, side_by_side, lengths)
        best = np.argsort(-scores)[:10]
        found = _ask(place, filled, layout, query, MULTI)
        assert [name for name, _ in found] == [rows[n]["id"] for n in best]
        np.testing.assert_allclose([score for _, score in found], scores[best], atol=1e-4)


FILTERS = {
    "year >= 2010": lambda row: row["year"] >= 2010,
    "2005 <= year < 2010": lambda row: 2005 <= row["year"] < 2010,
    "year != 2004 and draft": lambda row: row["year"] != 2004 and row["draft"],
    "not draft": lambda row: not row["draft"],
    'id in ["doc-3", "doc-4", "no"]': lambda row: row["id"] in ("doc-3", "doc-4"),
    'id not in ["doc-3", "doc-4"]': lambda row: row["id"] not in ("doc-3", "doc-4"),
    "weight > 0.5 or year == 2003": lambda row: row["weight"] > 0.5 or row["year"] == 2003,
    "not (weight > 0.5 or year == 2003)": lambda row: (
        not (row["weight"] > 0.5 or row["year"] == 2003)
    ),
    "title == \"The title of doc-5, 'quoted'; salt 0\"": lambda row: row["id"] == "doc-5",
    'title != "x"': lambda row: True,
}


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_finds_the_points_it_means(
    place: Place, corpus: Corpus, layout: Layout, filled: str, text: str
) -> None:
    query = corpus.living()[0]["embedding"]
    found = _ask(place, filled, layout, query, most=100, condition=parse_filter(text))
    wanted = {row["id"] for row in corpus.living() if FILTERS[text](row)}
    assert {name for name, _ in found} == wanted
    assert len(found) == len(wanted)


TIMES = ["2024-02-11T15:00:00.000001Z", "2024-01-15T07:00+01:00", "2024-01-15"]


@pytest.mark.parametrize("operator", ["==", "!=", "<", "<=", ">", ">="])
def test_times_are_compared_as_times(
    place: Place, corpus: Corpus, snapshot: Snapshot, layout: Layout, filled: str, operator: str
) -> None:
    query = corpus.living()[0]["embedding"]
    seen = corpus.living()[0]["seen"].isoformat()
    for text in (seen, *TIMES):
        condition = typed(parse_filter(f"seen {operator} {text!r}"), dict(layout.payload))
        here = ExactSearch(snapshot).search(
            Question(using=SINGLE, vectors=query[None], most=100, condition=condition)
        )
        found = _ask(place, filled, layout, query, most=100, condition=condition)
        assert {name for name, _ in found} == {hit.payload["id"] for hit in here}
    assert 0 < len(found) < 60 or operator in ("==", "!=")
    listed = typed(parse_filter(f"seen in [{seen!r}]"), dict(layout.payload))
    assert corpus.living()[0]["id"] in dict(
        _ask(place, filled, layout, query, most=100, condition=listed)
    )


def test_an_index_that_approximates_finds_nearly_all_and_as_many_as_are_asked_for(
    place: Place, corpus: Corpus
) -> None:
    corpus.add(names(600))
    snapshot = corpus.commit()
    place = place.with_keys(vectors=["single"], vector_index=True, payload=["year"], index=[])
    place.fill(snapshot)
    layout, exact, found = place.layout(snapshot), ExactSearch(snapshot), 0
    of_a_year = parse_filter("year == 2007")
    with place.reconnected() as again:
        for seed in range(5):
            query = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
            query /= np.linalg.norm(query)
            asked = Question(using=SINGLE, vectors=query[None], most=100)
            best = {hit.payload["id"]: hit.score for hit in exact.search(asked)}
            hits = _ask(again, "docs_1", layout, query, most=100)
            assert len(hits) == 100
            both = [(score, best[name]) for name, score in hits if name in best]
            np.testing.assert_allclose(*zip(*both, strict=True), atol=1e-2)
            found += len(both)
            few = _ask(again, "docs_1", layout, query, most=20, condition=of_a_year)
            wanted = [row["id"] for row in corpus.living() if row["year"] == 2007]
            assert len(few) == min(20, len(wanted))
    assert found >= 0.9 * 5 * 100


def test_nothing_that_is_null_fulfils_a_comparison(place: Place, corpus: Corpus) -> None:
    corpus.add(["none"], title=None, year=None, draft=None)
    corpus.add(["some"], title="a", year=2001, draft=True)
    snapshot = corpus.commit()
    place.fill(snapshot)
    layout, query = place.layout(snapshot), corpus.living()[0]["embedding"]
    for text in ('title != "b"', "year < 2002", "not year > 2002", 'title not in ["b"]', "draft"):
        found = _ask(place, "docs_1", layout, query, condition=parse_filter(text))
        assert [name for name, _ in found] == ["some"], text


def test_only_points_that_are_named_are_found(
    place: Place, corpus: Corpus, snapshot: Snapshot, layout: Layout, filled: str
) -> None:
    query = corpus.living()[0]["embedding"]
    points = _points(place, snapshot)
    among = points[POINT].to_pylist()[10:15]
    found = _ask(place, filled, layout, query, among=among)
    assert {name for name, _ in found} == set(points["id"].to_pylist()[10:15])


def test_a_collection_of_another_layout_is_refused_before_anything_is_written(
    place: Place, snapshot: Snapshot, layout: Layout, filled: str
) -> None:
    place.store.demand_fit(filled, layout)
    other = place.with_keys(dim=DIM // 2).layout(snapshot)
    with pytest.raises(CollectionError, match="'docs_1' is not what the spec asks for"):
        place.store.demand_fit(filled, other)
    if layout.multi is not None:
        alone = place.with_keys(vectors=["multi"]).layout(snapshot)
        with pytest.raises(CollectionError, match="single"):
            place.store.demand_fit(filled, alone)


def test_the_alias_leads_to_one_collection_and_then_to_another(
    place: Place, layout: Layout, filled: str
) -> None:
    assert place.store.live("docs") is None
    place.store.lead("docs", filled)
    assert place.store.live("docs") == filled
    place.store.create("docs_2", layout, OWNER)
    place.store.lead("docs", "docs_2")
    place.store.lead("docs", "docs_2")
    assert place.store.live("docs") == "docs_2"
    assert place.store.count(filled) == 60


def test_no_reader_of_an_alias_finds_nothing_while_it_changes(
    place: Place, corpus: Corpus, snapshot: Snapshot
) -> None:
    place.fill(snapshot)
    layout, query = place.layout(snapshot), corpus.living()[0]["embedding"]
    answers: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            live = place.store.live("docs")
            assert live is not None
            answers.append(len(_ask(place, live, layout, query)))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(3):
        place.fill(snapshot, beside=True)
    stop.set()
    reader.join()
    assert answers
    assert set(answers) == {10}


def test_a_filled_collection_holds_the_snapshot_version_by_version(
    place: Place, corpus: Corpus
) -> None:
    first = corpus.add(names(30))
    second = corpus.add(names(30, "other"))
    snapshots = [corpus.commit()]
    corpus.bury(first, 1, 2)
    corpus.add(["doc-1", "new"], salt=1)
    snapshots.append(corpus.commit())
    corpus.drop(second)
    snapshots.append(corpus.commit())
    ways = []
    for snapshot in snapshots:
        report = place.fill(snapshot)
        ways.append((report.how, report.written, report.deleted))
        _demand_holds(place, snapshot)
    assert ways == [("new collection", 60, 0), ("difference", 2, 1), ("difference", 0, 30)]
    assert by_id(corpus.living()).keys() == {row["id"] for row in corpus.living()}


def _demand_holds(place: Place, snapshot: Snapshot) -> None:
    """Everything that a snapshot has, and nothing else, is what readers get."""
    live = place.store.live("docs")
    assert live is not None
    points = _points(place, snapshot)
    assert sorted(_scanned(place, live)[POINT].to_pylist()) == sorted(points[POINT].to_pylist())
    rows = [Rows(part=part) for part in snapshot.parts]
    layout = place.layout(snapshot)
    looked = deviations(place.store, live, snapshot, layout, rows, None)
    assert not [one for _, found in looked for one in found]


def test_point_ids_are_version_5_uuids_of_what_the_embedding_is_of() -> None:
    rows = pa.table({"id": ["a"], "modality": ["text"], "task": ["code.query"]})
    (point,) = point_ids(OWNER, rows).to_pylist()
    assert uuid.UUID(bytes=point) == uuid.uuid5(uuid.UUID(OWNER), "text/code.query/a")
