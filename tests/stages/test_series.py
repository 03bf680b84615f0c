"""What is exported adds up to what the board shows, however it is read."""

import sys
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.board import Board
from pipeline.stages.series import METRICS, Differences, Kind, Series, Terms, levels, sums
from pipeline.stages.told import DeviceWork, Load, Progress, Seat
from pipeline.work import Receipt, Tally, WrittenFile

TERMS = Terms(job="docs", price=2.5, quarantine_share=0.01, stall=60)

_SEATS = st.builds(Seat, pool=st.sampled_from(["code", "shared"]), host=st.sampled_from("ab"))
_COUNTS = st.integers(0, 1 << 40)
_SECONDS = st.floats(0, 1e7)
_TALLIES = st.builds(
    Tally,
    units=_COUNTS,
    rows=_COUNTS,
    items=_COUNTS,
    tokens=_COUNTS,
    size=_COUNTS,
    embedded=st.dictionaries(st.sampled_from(["text", "image"]), _COUNTS).map(Counter),
    quarantined=st.dictionaries(st.sampled_from(["oom", "null_input"]), _COUNTS).map(Counter),
)
_WORK = st.builds(
    DeviceWork, packs=_COUNTS, tokens=_COUNTS, busy_seconds=_SECONDS, held_seconds=_SECONDS
)
_PROGRESS = st.builds(
    Progress,
    written=st.dictionaries(st.tuples(_SEATS, st.sampled_from(["code", "retrieval"])), _TALLIES),
    devices=st.dictionaries(_SEATS, _WORK),
    retries=st.dictionaries(st.tuples(st.just("code"), st.sampled_from(["embed"])), _COUNTS),
    seconds=st.dictionaries(st.sampled_from(["embed", "sink"]), _SECONDS),
    loads=st.lists(
        st.builds(Load, seat=_SEATS, device=st.just(""), seconds=_SECONDS, fetch_seconds=_SECONDS)
    ).map(tuple),
)


@given(st.lists(_PROGRESS, min_size=1, max_size=5))
def test_what_is_exported_is_the_most_that_was_shown_whatever_the_order(
    shown: list[Progress],
) -> None:
    differences, exported = Differences(), defaultdict[Series, float](float)
    most: dict[Series, float] = {}
    for progress in shown:
        found = sums(progress, TERMS)
        for _ in range(2):
            for series, added in differences.since(found).items():
                assert added >= 0
                exported[series] += added
        for series, value in found.items():
            most[series] = max(value, most.get(series, 0.0))
    assert exported.keys() == most.keys()
    for series, value in most.items():
        assert exported[series] == pytest.approx(value, rel=1e-12, abs=1e-9)


def test_a_sum_of_zero_is_told_once_and_nothing_vanishes_in_it() -> None:
    differences = Differences()
    (series, *_) = sums(Progress(waiting={("code", "embed"): 0}), TERMS)
    assert differences.since({series: 0}) == {series: 0.0}
    assert differences.since({series: 0}) == {}
    assert differences.since({series: 3}) == {series: 3}
    # what stands for zero
    assert sys.float_info.min + 3 == 3
    assert sys.float_info.min > 0


def test_every_metric_has_a_value_and_as_many_labels_as_it_says() -> None:
    seat = Seat(pool="code", host="a")
    tally = Tally(embedded=Counter(text=1), quarantined=Counter(oom=1))
    progress = Progress(
        written={(seat, "code"): tally},
        devices={seat: DeviceWork(packs=1)},
        seconds={"embed": 1.0},
        loads=(Load(seat=seat, device="", seconds=1, fetch_seconds=0),),
        planned={("code", "code"): 1},
        waiting={("code", "embed"): 1},
        living={seat: 1},
    )
    counters, gauges = sums(progress, TERMS), levels(progress, TERMS, 1.0)
    assert {metric for metric, _ in counters} | {metric for metric, _ in gauges} == set(METRICS)
    assert {metric.kind for metric, _ in counters} == {Kind.COUNTER}
    assert {metric.kind for metric, _ in gauges} == {Kind.GAUGE}
    for metric, values in counters | gauges:
        assert len(values) == len(metric.labels)


def test_without_a_price_no_cost_is_told() -> None:
    free = Terms(job="docs", price=None, quarantine_share=0.01, stall=60)
    progress = Progress(devices={Seat(pool="code", host="a"): DeviceWork(held_seconds=7200)})
    assert [v for (m, _), v in sums(progress, TERMS).items() if m.name == "nightjar_cost"] == [5.0]
    assert not [m for m, _ in sums(progress, free) if m.name == "nightjar_cost"]


def _receipt(unit: str) -> Receipt:
    data = WrittenFile(path="data/a.arrow", sha256="", size=100, rows=3)
    aside = WrittenFile(path="quarantine/a.arrow", sha256="", size=10, rows=1)
    return Receipt(
        unit=unit,
        adapter="code",
        rows=4,
        items=4,
        embedded={"text": 3},
        quarantined={"null_input": 1},
        tokens=30,
        data=data,
        quarantine=aside,
    )


def test_units_count_once_where_they_were_embedded_and_wait_where_they_are() -> None:
    board = Board()
    board.expect("shared", "code", {"one": 4, "two": 5})
    assert board.read().planned == {("shared", "code"): 9}
    assert board.read().waiting["shared", "source"] == 2
    board.take_up("source", "one", "process 1 on a", "a")
    board.has_read("one")
    # whoever opened it died, or could not
    board.take_up("source", "two", "process 1 on a", "a")
    board.put_down("source", "two")
    assert _waits(board) == {"prepare": 1}
    board.has_read("two")
    assert _waits(board) == {"prepare": 2}
    board.take_up("prepare", "one", "process 1 on a", "a")
    assert _waits(board) == {"prepare": 1}
    board.put_down("prepare", "one")
    assert _waits(board) == {"prepare": 1, "embed": 1}
    board.take_up("embed", "one", "process 2 on a", "a")
    # that process dies, and the block it had is lost
    board.take_up("prepare", "one", "process 1 on a", "a")
    assert _waits(board) == {"prepare": 1}
    board.put_down("prepare", "one")
    assert _waits(board) == {"prepare": 1}, "and no second unit"
    board.take_up("embed", "one", "process 3 on b", "b")
    assert _waits(board) == {"prepare": 1}
    assert board.read().retries == {("shared", "prepare"): 1, ("shared", "embed"): 1}
    board.put_down("embed", "one")
    assert _waits(board) == {"prepare": 1, "sink": 1}
    board.take_up("sink", "one", "process 4 on a", "a")
    board.add(_receipt("one"))
    board.add(_receipt("one"))
    board.put_down("sink", "one")
    assert _waits(board) == {"prepare": 1}
    ((seat, adapter), tally), *others = board.read().written.items()
    assert not others
    assert (seat, adapter) == (Seat(pool="shared", host="b"), "code")
    assert (tally.units, tally.rows, tally.tokens, tally.size) == (1, 4, 30, 110)
    assert tally.quarantined == {"null_input": 1}
    assert board.read().tallies["code"] == tally


def _waits(board: Board) -> dict[str, int]:
    return {stage: count for (_, stage), count in board.read().waiting.items() if count}


def test_devices_add_up_over_workers_of_which_each_tells_all_it_has_done() -> None:
    board, seat = Board(), Seat(pool="code", host="a")
    board.worked("1", seat, DeviceWork(tokens=10, held_seconds=2.0))
    board.worked("1", seat, DeviceWork(tokens=25, held_seconds=3.0))
    # a thread that was overtaken
    board.worked("1", seat, DeviceWork(tokens=20, held_seconds=2.5))
    board.worked("2", seat, DeviceWork(tokens=100, held_seconds=1.0))
    assert board.read().devices == {seat: DeviceWork(tokens=125, held_seconds=4.0)}
    assert board.read().living == {seat: 2}


def test_what_is_to_be_written_is_zero_from_the_moment_a_worker_is_ready() -> None:
    board, seat = Board(), Seat(pool="shared", host="a")
    board.expect("shared", "code", {"one": 4})
    board.expect("shared", "retrieval", {"two": 4})
    board.expect("other", "text-matching", {"three": 4})
    board.worked("1", seat, DeviceWork(held_seconds=2.0))
    written = board.read().written
    assert written == {(seat, "code"): Tally(), (seat, "retrieval"): Tally()}
    rows = {at: v for (m, at), v in sums(board.read(), TERMS).items() if m.name == "nightjar_rows"}
    assert rows == {("shared", "a", "code"): 0, ("shared", "a", "retrieval"): 0}


def test_a_worker_that_tells_nothing_any_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    board, seat = Board(), Seat(pool="code", host="a")
    board.worked("1", seat, DeviceWork(held_seconds=2.0))
    monkeypatch.setattr("pipeline.stages.board._LIVES_SECONDS", 0.0)
    assert board.read().living == {seat: 0}
    assert board.read().devices[seat].held_seconds == 2.0, "what it has cost stays"


def test_a_load_says_what_fetching_the_weights_took() -> None:
    seat = Seat(pool="retrieval", host="10.0.0.5")
    load = Load(seat=seat, device="cuda:0", seconds=12.34, fetch_seconds=0)
    assert load.sentence() == "retrieval: model loaded in 12.3 s on 10.0.0.5 (cuda:0)"
    load = Load(seat=seat, device="cuda:0", seconds=42.34, fetch_seconds=30.0)
    assert load.sentence().endswith("(cuda:0), 30.0 s of it to fetch the weights")
