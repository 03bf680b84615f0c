"""Feeding: within the store's bounds, no faster than it likes, and round the points it refuses."""

import threading
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.index.feed import Pace, batched, feed
from pipeline.index.layout import POINT, POINT_TYPE
from pipeline.index.store import Busy, Refused


def _table(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    return pa.table(
        {
            POINT: pa.array([number.to_bytes(16, "big") for number in numbers], POINT_TYPE),
            "id": [str(number) for number in numbers],
        }
    )


def _tables(sizes: list[int]) -> list[pa.Table]:
    return [_table(sum(sizes[:n]), size) for n, size in enumerate(sizes)]


@given(
    sizes=st.lists(st.integers(0, 30), max_size=6),
    most_points=st.integers(1, 20),
    most_bytes=st.integers(1, 2000),
)
def test_requests_hold_every_point_once_in_order_within_both_bounds(
    sizes: list[int], most_points: int, most_bytes: int
) -> None:
    found = list(batched(_tables(sizes), most_bytes, most_points))
    ids = [name for table in found for name in table["id"].to_pylist()]
    assert ids == [str(number) for number in range(sum(sizes))]
    for table in found:
        assert 0 < table.num_rows <= most_points
        # sizes are told to the byte, or a little less
        assert table.num_rows == 1 or 16 * table.num_rows <= most_bytes


@given(bad=st.sets(st.integers(0, 39), max_size=6), at_once=st.integers(1, 3))
def test_exactly_the_points_that_are_refused_are_rejected(bad: set[int], at_once: int) -> None:
    written: list[str] = []
    lock = threading.Lock()

    def send(table: pa.Table) -> None:
        if bad & {int(name) for name in table["id"].to_pylist()}:
            raise Refused("no")
        with lock:
            written.extend(table["id"].to_pylist())

    rejected = [
        int(one.id) for some in feed(_tables([10] * 4), send, Pace(at_once, 1.0)) for one in some
    ]
    assert sorted(rejected) == sorted(bad)
    assert sorted(map(int, written)) == sorted(set(range(40)) - bad)


def test_a_store_that_asks_to_wait_gets_fewer_requests_at_once_and_more_again_later() -> None:
    pace = Pace(8, 5.0)
    asked = iter([True, True, *[False] * 200])

    def request() -> None:
        if next(asked):
            raise Busy("429", retry_after=0.0)

    pace.call(request)
    assert pace.allowed == 2
    for _ in range(100):
        pace.call(lambda: None)
    assert pace.allowed == 8


def test_no_request_begins_before_the_time_that_the_store_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("pipeline.index.feed.time.monotonic", lambda: now[0])
    pace = Pace(2, 60.0)
    begun: list[float] = []

    def wait(_: threading.Condition, seconds: float | None = None) -> bool:
        now[0] += seconds or 0.0
        return True

    monkeypatch.setattr(threading.Condition, "wait", wait)

    def request() -> None:
        begun.append(now[0])
        if len(begun) == 1:
            raise Busy("429", retry_after=7.0)

    pace.call(request)
    assert begun == [100.0, 107.0]


def test_no_more_requests_are_in_flight_than_are_allowed() -> None:
    in_flight, most = 0, 0
    lock, gate = threading.Lock(), threading.Event()

    def send(_: pa.Table) -> None:
        nonlocal in_flight, most
        with lock:
            in_flight += 1
            most = max(most, in_flight)
        gate.wait(0.01)
        with lock:
            in_flight -= 1

    list(feed(_tables([1] * 30), send, Pace(3, 1.0)))
    assert most == 3


def test_an_error_of_ours_ends_the_feed() -> None:
    def send(_: pa.Table) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(feed(_tables([1] * 30), send, Pace(3, 1.0)))
