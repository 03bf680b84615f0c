"""Reading ahead: in order, several at a time, never all at once."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.ahead import ahead


def test_results_come_in_order_though_later_calls_end_first() -> None:
    second = threading.Event()

    def call(number: int) -> int:
        if number == 0:
            # ends only once the next has begun: one after another would wait for ever
            assert second.wait(timeout=30)
        second.set()
        return number

    assert list(ahead(call, range(100))) == list(range(100))


def test_no_more_is_asked_for_than_is_about_to_be_wanted() -> None:
    asked: list[int] = []

    def things() -> Iterator[int]:
        for number in range(1000):
            asked.append(number)
            yield number

    results = ahead(lambda number: number, things())
    assert next(results) == 0
    assert len(asked) < 50
    results.close()


def test_what_a_call_raises_is_raised_in_its_turn() -> None:
    results = ahead(lambda number: 1 // number, [1, 0, 2])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
