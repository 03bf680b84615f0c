"""What is read off what pretended actors have done."""

import pytest

from benchmarks.deeds import Deed
from benchmarks.elastic import rates


def _done(when: float, node: str) -> Deed:
    return Deed(when=when, actor=f"actor of {node}", node=node, what="unit", adapter="retrieval")


def test_a_second_node_is_judged_while_both_have_work() -> None:
    # one unit a second each; the second one joins at 10.5 and has the last word
    first = [_done(at, "first") for at in range(20)]
    second = [_done(at + 0.5, "second") for at in range(10, 30)]
    found = rates(sorted([*first, *second], key=lambda deed: deed.when))
    assert found["alone"] == pytest.approx(1.0)
    assert found["both"] == pytest.approx(2.0)
    assert found["gain"] == pytest.approx(2.0)


def test_a_second_node_that_was_never_used_is_an_error() -> None:
    with pytest.raises(SystemExit, match="the second node was never used"):
        rates([_done(at, "first") for at in range(20)])
