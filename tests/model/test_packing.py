"""Packs hold every item once, respect the budget, and are as full as best fit makes them."""

from functools import cache
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.model.packing import pack

COSTS = st.lists(st.integers(1, 60), max_size=40)
BUDGETS = st.integers(1, 80)


def log_normal(seed: int, median: float = 200, sigma: float = 1.0, count: int = 4000) -> list[int]:
    """Lengths of texts as corpora have them, 16 to 2048 tokens."""
    drawn = np.random.default_rng(seed).lognormal(np.log(median), sigma, count)
    return [int(length) for length in drawn.clip(16, 2048)]


def loads(packs: list[list[int]], costs: list[int]) -> list[int]:
    return [sum(costs[item] for item in one) for one in packs]


def fewest(costs: list[int], budget: int) -> int:
    """The least number of packs, by trying everything; for items that fit."""
    everything = (1 << len(costs)) - 1

    @cache
    def best(placed: int) -> tuple[int, int]:
        """(packs, load of the last): a smaller pair is never worse for what is left."""
        if not placed:
            return 1, 0
        options = []
        for item, cost in enumerate(costs):
            if placed >> item & 1:
                packs, load = best(placed & ~(1 << item))
                fits = load + cost <= budget
                options.append((packs, load + cost) if fits else (packs + 1, cost))
        return min(options)

    return best(everything)[0] if costs else 0


@example(costs=[0, 0, 5], budget=5)
@given(costs=st.lists(st.integers(0, 60), max_size=40), budget=BUDGETS)
def test_every_item_is_in_exactly_one_pack(costs: list[int], budget: int) -> None:
    packs = pack(costs, budget)
    assert sorted(item for one in packs for item in one) == list(range(len(costs)))
    assert all(packs)


@given(costs=COSTS, budget=BUDGETS)
def test_only_a_pack_of_one_item_exceeds_the_budget(costs: list[int], budget: int) -> None:
    packs = pack(costs, budget)
    for one, load in zip(packs, loads(packs, costs), strict=True):
        assert load <= budget or len(one) == 1


@given(costs=COSTS, budget=BUDGETS)
def test_no_two_packs_would_fit_into_one(costs: list[int], budget: int) -> None:
    # a pack is opened only for an item that none of those before it had room for
    ascending = sorted(loads(pack(costs, budget), costs))
    assert len(ascending) < 2 or ascending[0] + ascending[1] > budget


@given(costs=st.lists(st.integers(1, 20), max_size=8), budget=st.integers(20, 40))
def test_packs_are_at_most_11_ninths_of_the_fewest_and_one(costs: list[int], budget: int) -> None:
    assert len(pack(costs, budget)) <= 11 / 9 * fewest(costs, budget) + 1


@given(costs=COSTS, budget=BUDGETS)
def test_the_longest_come_first_and_equal_lengths_lie_together(
    costs: list[int], budget: int
) -> None:
    packs = pack(costs, budget)
    for one in packs:
        assert [costs[item] for item in one] == sorted((costs[item] for item in one), reverse=True)
    # so that a pack too large for the device shows at once
    firsts = [costs[one[0]] for one in packs]
    assert firsts == sorted(firsts, reverse=True)


@given(costs=COSTS, budget=BUDGETS)
def test_packing_is_deterministic_and_leaves_its_arguments_alone(
    costs: list[int], budget: int
) -> None:
    given_costs = tuple(costs)
    assert pack(given_costs, budget) == pack(costs, budget)
    assert tuple(costs) == given_costs


@given(costs=COSTS, budget=BUDGETS, random=st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_change_what_the_packs_cost(
    costs: list[int], budget: int, random: Random
) -> None:
    other = list(costs)
    random.shuffle(other)
    assert loads(pack(other, budget), other) == loads(pack(costs, budget), costs)


def test_nothing_gives_no_packs() -> None:
    assert pack([], 100) == []


def test_equal_items_stay_in_order() -> None:
    assert pack([5] * 7, 15) == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_item_above_the_budget_passes_alone_and_the_rest_together() -> None:
    assert pack([3, 100, 4, 101], 10) == [[3], [1], [2, 0]]


def test_an_item_goes_into_the_fullest_pack_that_has_room() -> None:
    # 6 and 5 have packs of their own; 4 fits both and fills the first
    assert pack([6, 5, 4], 10) == [[0, 2], [1]]
    assert pack([5, 6, 3, 4], 10) == [[1, 3], [0, 2]]


@pytest.mark.parametrize("budget", [0, 1])
def test_a_budget_that_nothing_fits_gives_every_item_its_own_pack(budget: int) -> None:
    assert pack([4, 9, 2], budget) == [[1], [0], [2]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("median", "sigma"), [(200, 1.0), (400, 0.7), (900, 0.8)])
def test_packs_of_log_normal_lengths_are_almost_full(
    seed: int, median: float, sigma: float
) -> None:
    costs = log_normal(seed, median, sigma)
    *full, _last = loads(pack(costs, 8192), costs)
    assert max(full) <= 8192
    assert np.mean(full) / 8192 >= 0.97
