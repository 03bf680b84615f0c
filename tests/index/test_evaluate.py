"""An evaluation finds what scoring every document by hand finds, and counts what it is about."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SpecError
from pipeline.index import evaluate as evaluating
from pipeline.index.beir import Asked, Judgements
from pipeline.index.coverage import barred, coverage_of
from pipeline.index.documents import Documents, documents_of
from pipeline.index.evaluate import Questions, Result, evaluate
from pipeline.index.spec import MultiSpec
from pipeline.tasks import TASKS, answering
from tests.index.corpus import DIM, MULTI_DIM, Corpus, names

DIMS = (4, 8, DIM)
TASK = TASKS["retrieval.query"]
_WANTED = {"ndcg_cut.5,10", "recall.5,10,100", "recip_rank"}


def _unit(random: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = random.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _questions(count: int, documents: Documents, seed: int = 0, **changed: Any) -> Questions:
    random = np.random.default_rng(seed)
    asked = {
        "names": tuple(f"q{number}" for number in range(count)),
        "single_QD": _unit(random, count, DIM),
        "multi": [_unit(random, int(random.integers(1, 6)), MULTI_DIM) for _ in range(count)],
    } | changed
    return Questions(**asked, barred_Q=barred(asked["names"], documents, True))


def _by_hand(
    rows: Sequence[Mapping[str, Any]], questions: Questions, dim: int | None
) -> list[dict[str, float]]:
    """Scores of each query's documents: by the first `dim` numbers, or by MaxSim for None."""
    found: list[dict[str, float]] = []
    for at, name in enumerate(questions.names):
        scores: dict[str, float] = {}
        for row in rows:
            if row["task"] != answering(TASK).name or row["id"] == name:
                continue
            if dim is None:
                assert questions.multi is not None
                products = questions.multi[at] @ np.stack(row["multivector"]).T.astype(np.float32)
                score = float(products.max(axis=1).sum())
            else:
                assert questions.single_QD is not None
                sides = [questions.single_QD[at][:dim], np.asarray(row["embedding"])[:dim]]
                query, document = (side / np.linalg.norm(side) for side in sides)
                score = float(query @ document)
            scores[row["id"]] = max(score, scores.get(row["id"], -np.inf))
        found.append(scores)
    return found


def _theirs(
    scores: Sequence[Mapping[str, float]], questions: Questions, judgements: Judgements
) -> dict[str, float]:
    """Means of trec_eval's measures; reciprocal ranks of the first ten."""
    run = {name: dict(of) for name, of in zip(questions.names, scores, strict=True)}
    qrels = {q: {d: int(grade) for d, grade in of.items()} for q, of in judgements.items()}
    judged = pytrec_eval.RelevanceEvaluator(qrels, _WANTED).evaluate(run)
    ten = {
        query: dict(sorted(of.items(), key=lambda one: one[::-1], reverse=True)[:10])
        for query, of in run.items()
    }
    first = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(ten)
    # a query that finds nothing is none of trec_eval's, and has 0 of everything
    total = len(questions.names)
    means = {
        f"{kind}@{most}": sum(of[f"{theirs}_{most}"] for of in judged.values()) / total
        for kind, theirs, most in (
            ("ndcg", "ndcg_cut", 5),
            ("ndcg", "ndcg_cut", 10),
            ("recall", "recall", 5),
            ("recall", "recall", 10),
            ("recall", "recall", 100),
        )
    }
    return means | {"mrr@10": sum(of["recip_rank"] for of in first.values()) / total}


def _means(result: Result) -> dict[str, float]:
    return {name: measured.mean for name, measured in result.measures.items()}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_snapshot_is_judged_as_trec_eval_judges_a_sort_of_all_documents(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    corpus = Corpus(root=tmp_path_factory.mktemp("corpus"))
    for number in range(data.draw(st.integers(1, 3))):
        path = corpus.add(names(data.draw(st.integers(1, 9)), f"f{number}-"))
        if data.draw(st.booleans()):
            # more rows of the same documents, which may be nearer
            corpus.add(names(3, f"f{number}-"), salt=1, modality="image")
        if data.draw(st.booleans()):
            corpus.link([(path, 0)], f"link{number}-")
        if len(corpus.rows[path]) > 1 and data.draw(st.booleans()):
            corpus.bury(path, 1)
    corpus.add(["asked", "q0"], task="retrieval.query")
    # a query finds no document of its own id
    corpus.add(["q1"])
    rows = corpus.living()
    documents = documents_of(corpus.commit(), TASK)
    questions = _questions(data.draw(st.integers(2, 4)), documents, data.draw(st.integers(0, 99)))
    ids = st.sampled_from([*sorted({row["id"] for row in rows}), "gone"])
    grades = st.dictionaries(ids, st.integers(-1, 3), min_size=1).filter(
        # of a query whose grades are all below 0 trec_eval's own code dies
        lambda of: max(of.values()) >= 0
    )
    judgements: Judgements = {name: data.draw(grades) for name in questions.names}
    results = evaluate(documents, questions, judgements, DIMS, MultiSpec())
    assert [(result.vectors, result.dim) for result in results] == [
        *(("single", dim) for dim in DIMS),
        ("multi", MULTI_DIM),
    ]
    for result in results:
        dim = result.dim if result.vectors == "single" else None
        theirs = _theirs(_by_hand(rows, questions, dim), questions, judgements)
        assert _means(result) == pytest.approx(theirs, abs=1e-6), result.vectors
        for measured in result.measures.values():
            assert measured.low <= measured.mean + 1e-9
            assert measured.mean <= measured.high + 1e-9


_EXACT = st.lists(st.sampled_from([-0.5, 0.0, 0.5]), min_size=DIM, max_size=DIM)
"""Inner products of these are exact, and many are equal."""


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(vectors=st.lists(_EXACT, min_size=1, max_size=12), query=_EXACT, at_once=st.integers(1, 200))
def test_documents_of_equal_scores_are_ordered_as_trec_eval_orders_them(
    vectors: list[list[float]],
    query: list[float],
    at_once: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    corpus = Corpus(root=tmp_path_factory.mktemp("corpus"))
    for number, vector in enumerate(vectors):
        # neither the order of the files nor that of numbers is that of texts
        corpus.add([f"d{number * 7 % 12}"], embedding=vector)
    documents = documents_of(corpus.commit(), TASK)
    asked = np.array([query], np.float32)
    questions = _questions(1, documents, single_QD=asked, multi=None)
    scores = {f"d{n * 7 % 12}": float(np.dot(v, query)) for n, v in enumerate(vectors)}
    judgements: Judgements = {"q0": {name: int(name[1:]) % 4 for name in scores}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "_NUMBERS", at_once)
        (result,) = evaluate(documents, questions, judgements, (DIM,), MultiSpec())
    theirs = _theirs([scores], questions, judgements)
    for measure in ("ndcg@5", "ndcg@10", "recall@5", "recall@10"):
        assert _means(result)[measure] == pytest.approx(theirs[measure])


@pytest.fixture
def documents(corpus: Corpus) -> Documents:
    corpus.add(names(130))
    corpus.add(names(40), salt=1, modality="image")
    return documents_of(corpus.commit(), TASK)


def _judged(questions: Questions) -> Judgements:
    return {name: {f"doc-{at * 3}": 1.0 for at in range(40)} for name in questions.names}


def test_with_many_multi_vectors_they_rank_what_single_vectors_find_first(
    documents: Documents, corpus: Corpus
) -> None:
    questions = _questions(5, documents)
    spec = MultiSpec(exact_vectors=documents.vectors - 1, rerank=110)
    result = evaluate(documents, questions, _judged(questions), DIMS, spec)[-1]
    assert result.reranked == 110
    firsts, seconds = (_by_hand(corpus.living(), questions, dim) for dim in (DIM, None))
    scores = [
        {name: second[name] for name in sorted(first, key=lambda name: -first[name])[:110]}
        for first, second in zip(firsts, seconds, strict=True)
    ]
    assert _means(result) == pytest.approx(_theirs(scores, questions, _judged(questions)))
    exact = evaluate(
        documents,
        questions,
        _judged(questions),
        DIMS,
        spec.model_copy(update={"exact_vectors": documents.vectors}),
    )[-1]
    assert exact.reranked is None
    assert _means(exact) == pytest.approx(_theirs(seconds, questions, _judged(questions)))
    assert _means(exact) != _means(result)


@pytest.mark.parametrize("exact_vectors", [0, 10_000])
def test_how_many_rows_are_scored_at_a_time_makes_no_difference(
    documents: Documents, monkeypatch: pytest.MonkeyPatch, exact_vectors: int
) -> None:
    questions = _questions(6, documents)
    spec = MultiSpec(exact_vectors=exact_vectors)
    whole = evaluate(documents, questions, _judged(questions), DIMS, spec)
    sizes = []
    read = Documents.read

    def counted(*arguments: Any) -> Any:
        for piece in read(*arguments):
            sizes.append(len(piece[1]))
            yield piece

    monkeypatch.setattr(Documents, "read", counted)
    monkeypatch.setattr(evaluating, "_NUMBERS", 200)
    parts = evaluate(documents, questions, _judged(questions), DIMS, spec)
    # 6 queries, or vectors of 16 numbers: no more than 200 of either
    assert max(sizes) <= 200 // 6
    for one, other in zip(whole, parts, strict=True):
        assert _means(one) == pytest.approx(_means(other))


def test_a_document_costs_what_its_vectors_do(documents: Documents, corpus: Corpus) -> None:
    results = evaluate(documents, _questions(2, documents), {"q0": {}, "q1": {}}, DIMS, MultiSpec())
    vectors = sum(len(row["multivector"]) for row in corpus.living())
    assert documents.vectors == vectors
    # 170 rows of 130 documents; float32 has four bytes and float16 two
    assert [one.bytes_per_document for one in results] == pytest.approx(
        [170 / 130 * dim * 4 for dim in DIMS] + [vectors / 130 * MULTI_DIM * 2]
    )
    assert [one.dtype for one in results] == ["float32"] * 3 + ["float16"]


def test_the_same_evaluation_has_the_same_intervals(documents: Documents) -> None:
    questions = _questions(9, documents)
    first, second = (
        evaluate(documents, questions, _judged(questions), DIMS, MultiSpec()) for _ in range(2)
    )
    assert first == second
    for result in first:
        assert result.measures["recall@100"].low < result.measures["recall@100"].high


def test_a_link_has_the_score_of_its_vectors_to_the_last_bit(corpus: Corpus) -> None:
    path = corpus.add(names(40))
    corpus.link([(path, at) for at in range(40)], "link")
    documents = documents_of(corpus.commit(), TASK)
    questions = _questions(20, documents)
    # of each two the greater id comes first, and the other next
    judgements: Judgements = {name: {"link7": 1.0} for name in questions.names}
    links = evaluate(documents, questions, judgements, DIMS, MultiSpec())
    judgements = {name: {"doc-7": 1.0} for name in questions.names}
    own = evaluate(documents, questions, judgements, DIMS, MultiSpec())
    for link, document in zip(links, own, strict=True):
        assert _means(link)["recall@5"] >= _means(document)["recall@5"]
        assert _means(link)["mrr@10"] > _means(document)["mrr@10"]
    (piece,) = documents.pieces
    assert (len(piece.at_V), len(piece.numbers_N)) == (40, 80)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("retrieval.query", "retrieval.passage"),
        ("retrieval.passage", "retrieval.passage"),
        ("code.query", "code.passage"),
        ("code.passage", "code.passage"),
        ("text-matching", "text-matching"),
    ],
)
def test_queries_find_the_passages_of_their_adapter(asked: str, wanted: str) -> None:
    assert answering(TASKS[asked]).name == wanted


def test_documents_are_neither_queries_nor_of_another_adapter(corpus: Corpus) -> None:
    corpus.add(names(4))
    corpus.add(["asked"], task="retrieval.query")
    corpus.add(["matched"], task="text-matching")
    snapshot = corpus.commit()
    found = documents_of(snapshot, TASK)
    assert found.names == ("doc-3", "doc-2", "doc-1", "doc-0")
    with pytest.raises(SpecError) as told:
        documents_of(snapshot, TASKS["code.query"])
    assert str(told.value) == (
        "queries.task: 'code.query' finds rows of code.passage, and version 1 of "
        f"{str(corpus.root)!r} has rows of retrieval.passage, retrieval.query, text-matching "
        "alone; name the task of the queries that fits, or another dataset"
    )


def _asked(judgements: Judgements) -> Asked:
    return Asked(texts=dict.fromkeys(judgements, "?"), judgements=judgements, unjudged=2, astray=3)


def test_what_is_not_there_is_counted(corpus: Corpus) -> None:
    corpus.add(["a", "b", "same", "other"])
    documents = documents_of(corpus.commit(), TASK)
    asked = _asked(
        {
            "found": {"a": 1, "gone": 2, "b": 0},
            "lost": {"gone": 1, "away": 1, "a": 0},
            "none": {"a": 0, "nowhere": -1},
            "same": {"a": 1, "same": 1},
            "other": {"a": 1, "other": 0},
        }
    )
    ids = barred(asked.texts, documents, True)
    assert [documents.names[at] if at >= 0 else None for at in ids] == [
        *[None] * 3,
        "same",
        "other",
    ]
    covered = coverage_of(asked, documents, ids, "qrels", TASK)
    assert (covered.queries, covered.unjudged, covered.astray) == (5, 2, 3)
    assert (covered.nothing_relevant, covered.unanswerable) == (1, 1)
    assert (covered.judged, covered.judged_absent) == (7, 3)
    assert (covered.relevant, covered.relevant_absent) == (4, 2)
    assert (covered.identical, covered.identical_relevant) == (2, 1)
    kept = coverage_of(asked, documents, barred(asked.texts, documents, False), "qrels", TASK)
    assert (kept.identical, kept.identical_relevant) == (0, 0)


@pytest.mark.parametrize(
    ("grades", "told"),
    [
        ({"a": 0}, "qrels: no document is relevant to any query: no score is above 0"),
        (
            {"pages/1.png": 1, "a": 0},
            "qrels: none of the 1 relevant documents is among the 2 of task retrieval.passage in "
            "the dataset; expected ids such as 'b', and found 'pages/1.png'",
        ),
    ],
)
def test_judgements_of_which_nothing_can_be_found_are_refused(
    corpus: Corpus, grades: dict[str, float], told: str
) -> None:
    corpus.add(["a", "b"])
    documents = documents_of(corpus.commit(), TASK)
    with pytest.raises(SpecError) as error:
        coverage_of(_asked({"q": grades}), documents, np.array([-1]), "qrels", TASK)
    assert str(error.value) == told


def test_a_snapshot_in_an_object_store_is_judged_as_one_on_a_disk(
    documents: Documents, bucket: str
) -> None:
    there = Corpus(root=bucket)
    there.add(names(130))
    there.add(names(40), salt=1, modality="image")
    questions = _questions(3, documents)
    spec = MultiSpec(exact_vectors=0)
    here, away = (
        evaluate(some, questions, _judged(questions), DIMS, spec)
        for some in (documents, documents_of(there.commit(), TASK))
    )
    assert here == away


def test_a_dataset_of_multi_vectors_alone_is_ranked_whole(documents: Documents) -> None:
    questions = _questions(3, documents, single_QD=None)
    (result,) = evaluate(documents, questions, _judged(questions), (), MultiSpec(exact_vectors=0))
    assert (result.vectors, result.reranked) == ("multi", None)
