"""Scores: MaxSim against an independent library, and the nearest of any scores."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.util import maxsim as theirs

from pipeline.index import scoring
from pipeline.index.scoring import maxsim, maxsim_of, nearest

_LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def _unit(random: np.random.Generator, count: int) -> np.ndarray:
    vectors = random.standard_normal((count, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(lengths=_LENGTHS, tokens=st.integers(1, 5), seed=st.integers(0, 99), turned=st.booleans())
def test_maxsim_is_that_of_sentence_transformers(
    lengths: list[int], tokens: int, seed: int, turned: bool
) -> None:
    random = np.random.default_rng(seed)
    query = _unit(random, tokens)
    documents = [_unit(random, length) for length in lengths]
    if turned:
        # all similarities below zero: a padded zero would win
        query = -np.abs(query)
        documents = [np.abs(document) for document in documents]
    wanted = theirs([query], documents)[0].numpy()
    found = maxsim(query, np.concatenate(documents), np.array(lengths))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert not turned or (found < 0).all()


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    lengths = np.array([3, 0, 7, 1, 2, 0])
    query, vectors = _unit(random, 4), _unit(random, 13)
    whole = maxsim(query, vectors, lengths)
    for block in (1, 9, 20, 33):
        monkeypatch.setattr(scoring, "_BLOCK", block)
        np.testing.assert_allclose(maxsim(query, vectors, lengths), whole, atol=1e-6)
    assert np.isneginf(whole[[1, 5]]).all()
    assert np.isfinite(whole[[0, 2, 3, 4]]).all()


def test_columns_of_half_precision_with_nulls_are_scored_in_single_precision() -> None:
    random = np.random.default_rng(2)
    rows = [
        list(_unit(random, 3).astype(np.float16)),
        None,
        list(_unit(random, 2).astype(np.float16)),
    ]
    kind = pa.list_(pa.list_(pa.float16(), 8))
    column = pa.chunked_array([pa.array(rows[:1], kind), pa.array(rows[1:], kind)])
    query = _unit(random, 2)
    found = maxsim_of(query, column)
    assert np.isneginf(found[1])
    for at in (0, 2):
        document = np.array(rows[at], np.float16).astype(np.float32)
        np.testing.assert_allclose(found[at], (query @ document.T).max(1).sum(), atol=1e-6)


@given(
    scores=st.lists(
        st.one_of(st.just(-np.inf), st.integers(-3, 3).map(float)), min_size=0, max_size=30
    ),
    most=st.integers(1, 12),
)
def test_the_nearest_are_those_of_a_stable_sort(scores: list[float], most: int) -> None:
    given_scores = np.array(scores, np.float32)
    ordered = np.argsort(-given_scores, kind="stable")
    wanted = [n for n in ordered.tolist() if scores[n] > -np.inf][:most]
    assert nearest(given_scores, most).tolist() == wanted
