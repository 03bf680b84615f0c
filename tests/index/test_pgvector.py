"""PostgreSQL: what only it has."""

import threading
import uuid
from typing import Any

import numpy as np
import psycopg
import pytest

from pipeline.errors import CollectionError, StoreFailed
from pipeline.index.connect import connected
from pipeline.index.layout import SINGLE
from pipeline.index.spec import VectorStoreSpec
from pipeline.index.store import Question
from tests.index.conftest import Place
from tests.index.corpus import Corpus, names


@pytest.fixture
def kind() -> str:
    return "pgvector"


def _sql(place: Place, query: str) -> list[Any]:
    with psycopg.connect(place.spec.url, autocommit=True) as connection:
        found = connection.execute(query)
        return found.fetchall() if found.description else []


def test_columns_have_types_that_a_person_would_choose(place: Place, corpus: Corpus) -> None:
    corpus.add(names(5))
    place.fill(corpus.commit())
    rows = _sql(
        place,
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'docs'::regclass AND attnum > 0",
    )
    assert dict(rows) == {
        "nightjar_point": "uuid",
        "nightjar_stamp": "bigint",
        "nightjar_run": "bigint",
        "id": "text",
        "modality": "text",
        "task": "text",
        "title": "text",
        "year": "bigint",
        "weight": "double precision",
        "draft": "boolean",
        "seen": "timestamp with time zone",
        "tags": "text",
        "single": "vector(16)",
        "multi": "halfvec(8)[]",
    }
    ((seen,),) = _sql(place, "SELECT seen::text FROM docs WHERE id = 'doc-0' ORDER BY 1")
    assert seen.startswith(str(corpus.living()[0]["seen"]))


def test_readers_of_the_view_never_wait_for_nothing(place: Place, corpus: Corpus) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    place.fill(snapshot)
    stop, counts = threading.Event(), set()

    def read() -> None:
        with psycopg.connect(place.spec.url, autocommit=True) as connection:
            while not stop.is_set():
                counts.add(connection.execute("SELECT count(*) FROM docs").fetchone())

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    # another layout too: the view has other columns then
    for payload in (["title"], ["year"], ["title", "year"]):
        place.with_keys(payload=payload, index=[]).fill(snapshot)
    stop.set()
    for reader in readers:
        reader.join()
    assert counts == {(20,)}


def test_a_table_of_the_name_of_the_alias_is_left_alone(place: Place, corpus: Corpus) -> None:
    _sql(place, "CREATE TABLE docs AS SELECT 1 AS x")
    corpus.add(names(5))
    with pytest.raises(CollectionError, match="'docs' is a relation that Nightjar has not made"):
        place.fill(corpus.commit())
    assert _sql(place, "SELECT x FROM docs") == [(1,)]


def test_a_table_that_is_not_ours_has_no_owner(place: Place) -> None:
    _sql(place, "CREATE TABLE docs_1 (x int)")
    with pytest.raises(CollectionError, match="'docs_1' is a relation that Nightjar has not made"):
        place.store.owner("docs_1")


def test_vectors_too_large_for_an_index_are_indexed_in_half_precision(
    place: Place, tmp_path: Any
) -> None:
    corpus = Corpus(root=tmp_path / "large", dim=2048)
    corpus.add(names(40))
    snapshot = corpus.commit()
    place = place.with_keys(vectors=["single"], vector_index=True)
    place.fill(snapshot)
    ((definition,),) = _sql(place, "SELECT indexdef FROM pg_indexes WHERE indexdef ~ 'hnsw'")
    assert "halfvec(2048)" in definition
    row = corpus.living()[3]
    question = Question(using=SINGLE, vectors=np.atleast_2d(row["embedding"]), most=1)
    (hit,) = place.store.search("docs_1", place.layout(snapshot), question)
    assert (hit.payload["id"], hit.score) == ("doc-3", pytest.approx(1, abs=1e-3))


def test_writers_of_the_same_points_in_any_order_do_not_deadlock(
    place: Place, corpus: Corpus
) -> None:
    path = corpus.add(names(200))
    snapshot = corpus.commit()
    place.fill(snapshot)
    table = snapshot.points([_rows(snapshot, path)], place.layout(snapshot), 5, None).table
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        order = np.random.default_rng(seed)
        for _ in range(5):
            try:
                place.store.upsert("docs_1", table.take(order.permutation(table.num_rows)))
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert place.store.count("docs_1") == 200


def test_a_connection_that_is_lost_is_made_anew(place: Place, corpus: Corpus) -> None:
    for number in range(4):
        corpus.add(names(10, f"f{number}-"))
    snapshot = corpus.commit()
    place.fill(snapshot)
    _sql(
        place,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    with connected(place.spec) as store:
        report = place.fill(snapshot, store, again=[_rows(snapshot, next(iter(corpus.parts)))])
    assert (report.points, report.written) == (40, 10)


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    spec = VectorStoreSpec(
        kind="pgvector", url="postgresql://me@127.0.0.1:1/nowhere", collection="docs"
    )
    with (
        pytest.raises(StoreFailed, match=r"store\.url: 'postgresql://me@127\.0\.0\.1:1/nowhere'"),
        connected(spec),
    ):
        pass


def _rows(snapshot: Any, path: str) -> Any:
    from pipeline.index.rows import Rows

    return next(Rows(part=part) for part in snapshot.parts if part.file.path == path)


def test_those_who_may_read_the_view_may_read_the_next_one(place: Place, corpus: Corpus) -> None:
    corpus.add(names(5))
    snapshot = corpus.commit()
    place.fill(snapshot)
    role = f"r{uuid.uuid4().hex}"
    _sql(place, f"CREATE ROLE {role}")
    _sql(place, f"GRANT SELECT ON docs TO {role}")
    _sql(place, "CREATE VIEW titles AS SELECT title FROM docs")
    may_read = f"SELECT has_table_privilege('{role}', 'docs', 'SELECT')"
    place.fill(snapshot, beside=True)
    assert _sql(place, may_read) == [(True,)]
    assert _sql(place, "SELECT count(*) FROM titles") == [(5,)]
    # other columns: the view cannot be replaced, and nobody is locked out for that
    _sql(place, "DROP VIEW titles")
    place.with_keys(payload=["year"], index=[]).fill(snapshot)
    assert _sql(place, may_read) == [(True,)]
    _sql(place, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_view_that_others_need_is_not_taken_from_them(place: Place, corpus: Corpus) -> None:
    corpus.add(names(5))
    snapshot = corpus.commit()
    place.fill(snapshot)
    _sql(place, "CREATE VIEW titles AS SELECT title FROM docs")
    with pytest.raises(CollectionError, match=r"the view 'docs' .* titles"):
        place.with_keys(payload=["year"], index=[]).fill(snapshot)
    assert _sql(place, "SELECT count(*) FROM titles") == [(5,)]


def test_texts_of_any_length_are_indexed(place: Place, corpus: Corpus) -> None:
    long = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9FFF, 20_000)))
    corpus.add(["long"], title=long)
    place.fill(corpus.commit())
    assert _sql(place, "SELECT length(title) FROM docs") == [(20_000,)]
    indexed = _sql(place, "SELECT indexdef FROM pg_indexes WHERE tablename = 'docs_1'")
    assert any("USING hash (title)" in definition for (definition,) in indexed)


def test_texts_are_ordered_by_their_characters(place: Place, corpus: Corpus) -> None:
    for name in ("a", "B", "\u00e4"):
        corpus.add([name], title=name)
    place.fill(corpus.commit())
    assert _sql(place, "SELECT title FROM docs ORDER BY title") == [("B",), ("a",), ("\u00e4",)]
