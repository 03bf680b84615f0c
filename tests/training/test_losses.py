"""Each loss against a formula that is written out another way, in float64 and without torch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.training.losses import (
    MultiVectors,
    cosent,
    divergence,
    info_nce,
    late_scores,
    reading,
    single_scores,
    taught,
)

_TEMPERATURE = 0.1
seeds = st.integers(0, 2**32 - 1)


def _unit(generator: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    values = generator.standard_normal(shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def _tensor(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(seeds)
def test_info_nce_is_the_log_share_of_the_positive(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.uniform(-1, 1, (4, 7))
    over = generator.random((4, 7)) < 0.2
    over[np.arange(4), np.arange(4)] = False
    rows = [0, 2, 3]
    expected = 0.0
    for row in rows:
        shares = [
            math.exp(s / _TEMPERATURE) for s, o in zip(scores[row], over[row], strict=True) if not o
        ]
        expected -= math.log(math.exp(scores[row, row] / _TEMPERATURE) / sum(shares)) / len(rows)
    found = info_nce(_tensor(scores), _TEMPERATURE, torch.tensor(over), torch.tensor(rows))
    assert found.item() == pytest.approx(expected, rel=1e-9)


@given(seeds)
def test_the_divergence_is_of_the_late_distribution_from_the_single_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    single, late = generator.uniform(-1, 1, (2, 3, 5))
    over = np.zeros((3, 5), bool)
    over[1, 4] = True
    expected = 0.0
    for row in range(3):
        there = ~over[row]
        p, q = (np.exp(s[row][there] / _TEMPERATURE) for s in (single, late))
        p, q = p / p.sum(), q / q.sum()
        expected += float((p * np.log(p / q)).sum()) / 3
    found = divergence(_tensor(single), _tensor(late), _TEMPERATURE, torch.tensor(over))
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(seeds)
def test_late_scores_are_maxsim_over_own_tokens_alone(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = [[2, 1, 3], [1, 4, 2, 3]]
    padded = [_unit(generator, len(some), max(some), 5) for some in lengths]
    # negative cosines everywhere: padding of zeros would win
    padded[0] = np.abs(padded[0])
    padded[1] = -np.abs(padded[1])
    multi = [
        MultiVectors(vectors_BTD=_tensor(vectors), lengths_B=torch.tensor(some))
        for vectors, some in zip(padded, lengths, strict=True)
    ]
    found = late_scores(multi[0], multi[1])
    for q, query_length in enumerate(lengths[0]):
        for p, length in enumerate(lengths[1]):
            each = padded[0][q, :query_length] @ padded[1][p, :length].T
            expected = each.max(axis=1).sum() / query_length
            assert found[q, p].item() == pytest.approx(expected, rel=1e-9)


@given(seeds)
def test_cosent_sums_over_all_pairs_that_are_in_the_wrong_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, grades = generator.uniform(-1, 1, 6), generator.integers(0, 3, 6).astype(float)
    total = 1.0
    for one in range(6):
        for other in range(6):
            if grades[one] > grades[other]:
                total += math.exp((scores[other] - scores[one]) / _TEMPERATURE)
    found = cosent(_tensor(scores), _tensor(grades), _TEMPERATURE)
    assert found.item() == pytest.approx(math.log(total), rel=1e-9, abs=1e-12)


@given(seeds)
def test_a_teachers_word_counts_among_those_that_it_knows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, cosines = generator.uniform(-1, 1, (2, 3, 5))
    cosines[1, 3] = np.nan
    expected = 0.0
    for row in range(3):
        known = np.isfinite(cosines[row])
        p = np.exp(cosines[row][known] / 0.3)
        q = np.exp(scores[row][known] / _TEMPERATURE)
        p, q = p / p.sum(), q / q.sum()
        expected += float((p * np.log(p / q)).sum()) / 3
    found = taught(_tensor(scores), _tensor(cosines), _TEMPERATURE, 0.3)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_single_scores_are_cosines_of_what_is_left_after_the_cut() -> None:
    generator = np.random.default_rng(0)
    queries, candidates = _unit(generator, 2, 8), _unit(generator, 3, 8)
    found = single_scores(_tensor(queries), _tensor(candidates), 4).numpy()
    for q in range(2):
        for p in range(3):
            one, other = queries[q, :4], candidates[p, :4]
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            assert found[q, p] == pytest.approx(cosine, rel=1e-9)


def test_all_losses_have_gradients_that_are_right() -> None:
    generator = np.random.default_rng(0)
    queries, candidates = (_tensor(_unit(generator, 3, 4)).requires_grad_() for _ in range(2))
    tokens = [_tensor(_unit(generator, 3, 2, 4)).requires_grad_() for _ in range(2)]
    over, rows, lengths = torch.zeros(3, 3, dtype=bool), torch.arange(3), torch.tensor([1, 2, 2])
    grades = torch.tensor([0.0, 1.0, 2.0])

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        single = single_scores(leaves[0], leaves[1], 4)
        multi = [MultiVectors(vectors_BTD=leaf, lengths_B=lengths) for leaf in leaves[2:]]
        late = late_scores(multi[0], multi[1])
        return (
            info_nce(single, _TEMPERATURE, over, rows)
            + info_nce(late, _TEMPERATURE, over, rows)
            + divergence(single, late, _TEMPERATURE, over)
            + taught(single, over.double(), _TEMPERATURE, 0.3)
            + cosent(single.diagonal(), grades, _TEMPERATURE)
        )

    assert torch.autograd.gradcheck(loss, (queries, candidates, *tokens))


@given(seeds)
def test_reading_is_the_log_share_of_what_is_shown_and_how_far_it_is(seed: int) -> None:
    generator = np.random.default_rng(seed)
    seen, tokens = generator.standard_normal((5, 6)), generator.standard_normal((9, 6)) * 3
    shown = [4, -2, 7, 4, 0]
    shares, distances = [], []
    length = float(np.mean([np.sum(tokens[token] ** 2) for token in (0, 4, 7)]))
    for vector, token in zip(seen, shown, strict=True):
        if token < 0:
            continue
        odds = {
            other: math.exp(
                float(vector @ tokens[other])
                / math.sqrt(float(vector @ vector) * float(tokens[other] @ tokens[other]))
                / _TEMPERATURE
            )
            for other in (0, 4, 7)
        }
        shares.append(-math.log(odds[token] / sum(odds.values())))
        distances.append(float(np.sum((vector - tokens[token]) ** 2)) / (2 * length))
    found = reading(_tensor(seen), torch.tensor(shown), _tensor(tokens), _TEMPERATURE, 0.25)
    expected = float(np.mean(shares)) + 0.25 * float(np.mean(distances))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_reading_moves_what_is_seen_and_no_token() -> None:
    seen = torch.randn(3, 4, requires_grad=True)
    tokens = torch.randn(5, 4, requires_grad=True)
    reading(seen, torch.tensor([1, -2, 2]), tokens, _TEMPERATURE).backward()
    assert tokens.grad is None
    assert seen.grad is not None
    assert seen.grad.any(dim=1).tolist() == [True, False, True]
