"""Exact search finds what a sort of all scores would, dead rows and links or not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.index.exact import ExactSearch
from pipeline.index.filters import parse_filter
from pipeline.index.layout import MULTI, SINGLE
from pipeline.index.rows import Snapshot
from pipeline.index.scoring import maxsim
from pipeline.index.search import Asked, search
from pipeline.index.store import Question
from pipeline.index.typed import typed
from pipeline.tasks import TASKS
from tests.index.corpus import DIM, MULTI_DIM, Corpus, names


def _query(size: int, count: int = 1, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _found(exact: ExactSearch, question: Question) -> list[tuple[str, float]]:
    return [(hit.payload["id"], hit.score) for hit in exact.search(question)]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_snapshot_is_searched_as_a_sort_of_all_its_rows(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    corpus = Corpus(root=tmp_path_factory.mktemp("corpus"))
    for number in range(data.draw(st.integers(1, 4))):
        path = corpus.add(names(data.draw(st.integers(1, 12)), f"f{number}-"))
        for at in data.draw(st.sets(st.integers(0, len(corpus.rows[path]) - 1), max_size=4)):
            corpus.bury(path, at)
        if data.draw(st.booleans()):
            rows = st.lists(st.integers(0, len(corpus.rows[path]) - 1), min_size=1, max_size=4)
            linked = corpus.link([(path, at) for at in data.draw(rows)], f"link{number}-")
            if data.draw(st.booleans()):
                corpus.bury(linked, 0)
            if data.draw(st.booleans()):
                # its own rows are no more, and its vectors are lent
                corpus.lend(path)
    exact = ExactSearch(corpus.commit())
    living = corpus.living()
    single, multi = _query(DIM), _query(MULTI_DIM, 3)
    cosines = np.array([row["embedding"] @ single[0] for row in living], np.float32)
    sums = np.array(
        [
            maxsim(multi, np.stack(row["multivector"]), np.array([len(row["multivector"])]))[0]
            for row in living
        ]
    )
    for using, vectors, scores in ((SINGLE, single, cosines), (MULTI, multi, sums)):
        found = _found(exact, Question(using=using, vectors=vectors, most=5))
        best = np.argsort(-scores, kind="stable")[:5]
        np.testing.assert_allclose([score for _, score in found], scores[best], atol=1e-5)
        for name, score in found:
            own = [s for row, s in zip(living, scores, strict=True) if row["id"] == name]
            assert np.isclose(own, score, atol=1e-5).any()


@pytest.fixture
def snapshot(corpus: Corpus) -> Snapshot:
    corpus.add(names(50))
    corpus.add(names(50, "code"), task="code.passage")
    return corpus.commit()


def test_vectors_of_a_local_file_are_mapped_and_not_copied(snapshot: Snapshot) -> None:
    exact = ExactSearch(snapshot)
    for block in exact._vectors:
        assert not block.flags.owndata
        assert not block.flags.writeable


def test_a_snapshot_in_an_object_store_is_searched_too(bucket: str, tmp_path: Path) -> None:
    corpus = Corpus(root=tmp_path / "local")
    corpus.add(names(30))
    here = ExactSearch(corpus.commit())
    there = Corpus(root=bucket)
    there.add(names(30))
    away = ExactSearch(there.commit())
    question = Question(using=SINGLE, vectors=_query(DIM), most=7)
    assert _found(away, question) == _found(here, question)


def test_rows_of_another_adapter_are_not_compared(snapshot: Snapshot) -> None:
    asked = Asked(single=_query(DIM)[0], multi=None, task=TASKS["code.query"])
    hits = search(ExactSearch(snapshot), asked, 100, 100)
    assert len(hits) == 50
    assert {hit.payload["task"] for hit in hits} == {"code.passage"}


def test_rows_that_were_embedded_as_queries_are_found_only_when_named(corpus: Corpus) -> None:
    corpus.add(["asked"], task="retrieval.query")
    corpus.add(["passage"])
    exact = ExactSearch(corpus.commit())
    for text, wanted in (
        (None, {"passage"}),
        ("year > 0", {"passage"}),
        ('task == "retrieval.query"', {"asked"}),
        ('task != "code.query"', {"asked", "passage"}),
    ):
        asked = Asked(
            single=_query(DIM)[0],
            multi=None,
            task=TASKS["retrieval.query"],
            condition=None if text is None else typed(parse_filter(text), exact.types),
        )
        assert {hit.payload["id"] for hit in search(exact, asked, 10, 10)} == wanted, text


def test_candidates_of_single_vectors_are_put_in_order_by_maxsim(
    snapshot: Snapshot, corpus: Corpus
) -> None:
    exact = ExactSearch(snapshot)
    single, multi = _query(DIM)[0], _query(MULTI_DIM, 3)
    first = search(exact, Asked(single=single, multi=None, task=TASKS["retrieval.query"]), 20, 1)
    hits = search(exact, Asked(single=single, multi=multi, task=TASKS["retrieval.query"]), 5, 20)
    rows = {row["id"]: np.stack(row["multivector"]) for row in corpus.living()}
    scored = {
        hit.payload["id"]: float(
            maxsim(multi, rows[hit.payload["id"]], np.array([len(rows[hit.payload["id"]])]))[0]
        )
        for hit in first
    }
    wanted = sorted(scored, key=lambda name: -scored[name])[:5]
    assert [hit.payload["id"] for hit in hits] == wanted
    assert [hit.score for hit in hits] == pytest.approx([scored[name] for name in wanted])


def test_a_document_is_told_once_by_the_best_of_its_rows(corpus: Corpus) -> None:
    corpus.add(["both", "other"])
    corpus.add(["both"], salt=1, modality="image")
    exact = ExactSearch(corpus.commit())
    asked = Asked(single=_query(DIM)[0], multi=None, task=TASKS["retrieval.query"])
    hits = search(exact, asked, 10, 10)
    assert sorted(hit.payload["id"] for hit in hits) == ["both", "other"]
    scores = [row["embedding"] @ _query(DIM)[0] for row in corpus.living() if row["id"] == "both"]
    (both,) = (hit for hit in hits if hit.payload["id"] == "both")
    assert both.score == pytest.approx(max(scores), abs=1e-6)
