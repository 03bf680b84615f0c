"""Which pairs a step looks at, whatever the sizes and weights."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.batches import Batches

plans = st.integers(1, 4).flatmap(
    lambda entries: st.builds(
        Batches,
        seed=st.integers(0, 1000),
        steps=st.integers(1, 30),
        pairs=st.integers(2, 9),
        sources=st.integers(1, entries),
        sizes=st.tuples(*[st.integers(1, 12)] * entries),
        weights=st.tuples(*[st.floats(0.1, 10)] * entries),
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
