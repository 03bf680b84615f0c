"""Which pairs a step looks at, whatever the sizes and weights."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.batches import Batches


def _plan(entries: int, sizes: tuple[int, ...]) -> st.SearchStrategy[Batches]:
    vectors = [np.random.default_rng(size).normal(size=(size, 3)) for size in sizes]
    taught = [None, *(some.astype(np.float32) for some in vectors[1:])]
    return st.builds(
        Batches,
        seed=st.integers(0, 1000),
        steps=st.integers(1, 30),
        pairs=st.integers(2, 9),
        sources=st.integers(1, entries),
        sizes=st.just(sizes),
        weights=st.tuples(*[st.floats(0.1, 10)] * entries),
        alike=st.integers(1, 4),
        taught=st.just(tuple(taught)),
    )


plans = st.integers(1, 4).flatmap(
    lambda entries: st.tuples(*[st.integers(1, 12)] * entries).flatmap(
        lambda sizes: _plan(entries, sizes)
    )
)


@given(plans)
def test_each_pair_of_an_entry_comes_once_before_any_comes_again(plan: Batches) -> None:
    seen: dict[int, list[int]] = {}
    for step in range(plan.steps):
        drawn = plan.of(step)
        assert len(drawn) == plan.sources
        assert sum(len(rows) for _, rows in drawn) == plan.pairs
        for entry, rows in drawn:
            seen.setdefault(entry, []).extend(rows.tolist())
    for entry, rows in seen.items():
        size = plan.sizes[entry]
        for first in range(0, len(rows), size):
            turn = Counter(rows[first : first + size])
            assert set(turn) <= set(range(size))
            assert max(turn.values()) == 1


@given(plans)
def test_a_step_depends_on_nothing_but_the_plan(plan: Batches) -> None:
    again = Batches(**{name: getattr(plan, name) for name in Batches.__dataclass_fields__})
    last = plan.steps - 1
    # the one is asked of the last step alone, the other of all before
    alone = [(entry, rows.tolist()) for entry, rows in again.of(last)]
    for step in range(plan.steps):
        found = [(entry, rows.tolist()) for entry, rows in plan.of(step)]
    assert found == alone


def test_a_group_is_of_pairs_that_the_teacher_finds_alike() -> None:
    # eight kinds of eight pairs each, of which a random batch of eight has hardly two alike
    kinds = np.repeat(np.eye(8, dtype=np.float32), 8, axis=0)
    noise = np.random.default_rng(0).normal(scale=0.05, size=kinds.shape).astype(np.float32)

    def alike(groups: int) -> float:
        plan = Batches(
            seed=0,
            steps=80,
            pairs=8,
            sources=1,
            sizes=(64,),
            weights=(1.0,),
            alike=groups,
            taught=(kinds + noise,),
        )
        batches = [rows // 8 for step in range(80) for _, rows in plan.of(step)]
        assert any((batches[0] != batch).any() for batch in batches[8::8])
        return float(np.mean([(of[:, None] == of[None, :]).mean() for of in batches]))

    assert alike(1) == pytest.approx(1 / 8 + 7 / 8 * 7 / 63, abs=0.02)
    assert alike(8) > 0.5
