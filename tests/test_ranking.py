"""How good a ranking is: against trec_eval's own code, and by hand."""

from collections.abc import Mapping

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ranking import in_order, intervals, ndcg, recall, reciprocal_rank

_IDS = st.sampled_from(["1", "10", "2", "9", "A", "a", "b", "ä", "字", "doc-7", "doc-70"])
_GRADES = st.dictionaries(_IDS, st.integers(-2, 4), min_size=1).filter(
    lambda grades: max(grades.values()) >= 0
)
"""Some of what is found has none: it was not judged. A query whose grades are all -2 makes
trec_eval write outside of its memory (pytrec_eval-terrier 0.5.11), and the process die."""
_SCORES = st.dictionaries(_IDS, st.sampled_from([-1.5, -0.25, 0.0, 0.25, 0.5, 1.0]), min_size=1)
"""Many are equal."""


@given(_SCORES, _GRADES)
def test_rankings_are_as_good_as_trec_eval_says(
    scores: dict[str, float], grades: dict[str, int]
) -> None:
    wanted = {"ndcg_cut.5,10", "recall.5,10,100"}
    theirs = pytrec_eval.RelevanceEvaluator({"q": grades}, wanted).evaluate({"q": scores})["q"]
    found = [name for _, name in in_order((score, name) for name, score in scores.items())]
    for most in (5, 10):
        assert ndcg(found, grades, most) == pytest.approx(theirs[f"ndcg_cut_{most}"])
    for most in (5, 10, 100):
        assert recall(found, grades, most) == pytest.approx(theirs[f"recall_{most}"])


@given(_SCORES, _GRADES, st.integers(1, 12))
def test_the_reciprocal_rank_is_what_trec_eval_says_of_the_first_ones(
    scores: dict[str, float], grades: dict[str, int], most: int
) -> None:
    ranked = in_order((score, name) for name, score in scores.items())
    first = {name: score for score, name in ranked[:most]}
    theirs = pytrec_eval.RelevanceEvaluator({"q": grades}, {"recip_rank"}).evaluate({"q": first})
    found = [name for _, name in ranked]
    assert reciprocal_rank(found, grades, most) == pytest.approx(theirs["q"]["recip_rank"])


@pytest.mark.parametrize(
    ("found", "grades", "gain", "part"),
    [
        (["a", "b"], {"a": 2, "b": 1}, 1.0, 1.0),
        # 2/log2(2) + 1/log2(3) would be best
        (["b", "a"], {"a": 2, "b": 1}, (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3)), 1.0),
        (["x", "a"], {"a": 1}, 1 / np.log2(3), 1.0),
        (["x"], {"a": 1}, 0.0, 0.0),
        ([*"0123456789", "a"], {"a": 1}, 0.0, 0.0),
        (["a", "x"], {"a": 1, "b": 1}, 1 / (1 + 1 / np.log2(3)), 0.5),
        (["a", "x"], {"a": 0, "x": -1}, 0.0, 0.0),
        (["a", "x"], {"a": -2}, 0.0, 0.0),
        (["a", "x"], {"a": 0.5}, 1.0, 1.0),
    ],
)
def test_a_ranking_is_graded_by_hand(
    found: list[str], grades: Mapping[str, float], gain: float, part: float
) -> None:
    assert ndcg(found, grades, 10) == pytest.approx(gain)
    assert recall(found, grades, 10) == pytest.approx(part)


def test_a_document_is_as_good_as_its_best_hit_and_of_equal_ones_the_greater_id_is_first() -> None:
    hits = [(0.5, "b"), (0.1, "a"), (0.5, "c"), (0.9, "a"), (0.5, "b")]
    assert in_order(hits) == [(0.9, "a"), (0.5, "c"), (0.5, "b")]


def test_an_interval_is_about_as_wide_as_the_mean_is_uncertain() -> None:
    values = np.random.default_rng(3).normal(0.4, 0.1, (400, 2))
    ends = intervals(values)
    assert ends.shape == (2, 2)
    for (low, high), column in zip(ends, values.T, strict=True):
        half = 1.96 * column.std() / np.sqrt(400)
        assert low == pytest.approx(column.mean() - half, abs=half / 8)
        assert high == pytest.approx(column.mean() + half, abs=half / 8)


def test_an_interval_is_the_same_for_the_same_seed_and_for_a_measure_beside_others() -> None:
    values = np.random.default_rng(3).uniform(size=(40, 3))
    assert (intervals(values) == intervals(values)).all()
    assert (intervals(values, seed=1) != intervals(values)).any()
    assert intervals(values[:, 1:2])[0] == pytest.approx(intervals(values)[1])


def test_the_interval_of_what_never_varies_is_that_value() -> None:
    assert intervals(np.full((7, 1), 0.25)) == pytest.approx(np.full((1, 2), 0.25))
    assert intervals(np.array([[0.75]])) == pytest.approx(np.full((1, 2), 0.75))
