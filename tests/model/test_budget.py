"""The budget is the smallest pack about as fast as the best, and a host remembers it.

No time passes here: the clock is a fake, and so are the packs that move it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pipeline.model import budget
from pipeline.model.budget import BUDGETS, LARGEST, SMALLEST, TokenBudget, find_budget

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZES = [1024, 2048, 4096, 8192]

OUT_OF_MEMORY = {
    "of the device": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "of Python": MemoryError(),
    "of the host": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 9000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
}
out_of_memory = pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=list(OUT_OF_MEMORY))


class Clock:
    """A device that runs at the rates it is told, on a clock that only it moves."""

    def __init__(self, rate: Callable[[int], float], *, first_costs: float = 0.0) -> None:
        self.now = 1000.0
        self.ran: list[int] = []
        self.error: Exception | None = None
        self.fails_at: tuple[int, int] | None = None
        """(size, which of its runs, from 1) that raises the error."""
        self._rate = rate
        self._first_costs = first_costs

    def run(self, size: int) -> None:
        self.ran.append(size)
        times = self.ran.count(size)
        if self.error is not None and self.fails_at == (size, times):
            raise self.error
        self.now += size / self._rate(size) + (self._first_costs if times == 1 else 0.0)

    def read(self) -> float:
        return self.now


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    """Puts a new clock in place of the real one."""

    def make(rate: Callable[[int], float] | dict[int, float], **options: float) -> Clock:
        clock = Clock(rate.__getitem__ if isinstance(rate, dict) else rate, **options)
        monkeypatch.setattr(
            budget, "time", SimpleNamespace(perf_counter=clock.read, monotonic=clock.read)
        )
        return clock

    return make


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def no_run(size: int) -> None:
    pytest.fail(f"a pack of {size} was run")


def known(key: str, fixed: int | None = None) -> int:
    """What an instance knows without a measurement."""
    made = TokenBudget(key, CPU, fixed)
    assert made.is_known
    return made.tokens(no_run)


def measured_as(tokens: int, key: str = "a device") -> TokenBudget:
    """A budget that was measured and is remembered."""
    made = TokenBudget(key, CPU, None)
    made._keep(tokens)
    return made


# Measured ---------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(rates=[970, 980, 990, 1000])
@example(rates=[969, 980, 1000, 10])
@given(rates=st.lists(st.integers(500, 1030), min_size=4, max_size=4))
def test_the_smallest_size_within_three_percent_of_the_best_is_taken(
    start: Callable[..., Clock], rates: list[int]
) -> None:
    best = max(rates)
    # neither side of the limit itself: dividing by a time may round over it
    rates = [rate + 1 if rate * 100 == best * 97 else rate for rate in rates]
    assume(max(rates) == best)
    clock = start({size: 1000.0 * rate for size, rate in zip(SIZES, rates, strict=True)})
    expected = next(size for size, r in zip(SIZES, rates, strict=True) if r * 100 >= best * 97)
    assert find_budget(clock.run, CPU) == expected


@pytest.mark.parametrize("small", [None, 1024, 4096])
def test_a_size_that_runs_faster_is_taken_even_if_its_first_run_was_slow(
    start: Callable[..., Clock], small: int | None
) -> None:
    # the first run of each size allocates and compiles: it says nothing about the rate
    clock = start(lambda size: 1e6 if size == (small or 8192) else 1e5, first_costs=0.3)
    assert find_budget(clock.run, CPU) == (small or 8192)


def test_a_cpu_is_tried_up_to_its_largest_size_and_no_further(start: Callable[..., Clock]) -> None:
    clock = start(lambda size: 1000.0 * size)
    assert find_budget(clock.run, CPU) == LARGEST["cpu"] == 8192
    assert sorted(set(clock.ran)) == SIZES


def test_a_slow_device_is_not_tried_for_long(start: Callable[..., Clock]) -> None:
    # 1.5 seconds a pack, however large: the next would pay off, but nobody waits for it
    clock = start(lambda size: size / 1.5)
    assert find_budget(clock.run, CPU) == SMALLEST
    assert set(clock.ran) == {SMALLEST}


@out_of_memory
@pytest.mark.parametrize("which", [1, 2])
def test_an_out_of_memory_error_ends_the_search_with_what_is_known(
    start: Callable[..., Clock], error: Exception, which: int
) -> None:
    clock = start(lambda size: 1000.0 * size)
    clock.error, clock.fails_at = error, (4096, which)
    assert find_budget(clock.run, CPU) == 2048
    assert max(clock.ran) == 4096


@out_of_memory
@pytest.mark.parametrize("which", [1, 2])
def test_an_out_of_memory_error_of_the_smallest_size_is_raised(
    start: Callable[..., Clock], error: Exception, which: int
) -> None:
    clock = start(lambda size: 1e6)
    clock.error, clock.fails_at = error, (SMALLEST, which)
    with pytest.raises(type(error)) as raised:
        find_budget(clock.run, CPU)
    assert raised.value is error


@pytest.mark.parametrize("size", [1024, 4096])
@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: an illegal memory access"), ValueError("odd")], ids=str
)
def test_any_other_error_is_raised(
    start: Callable[..., Clock], size: int, error: Exception
) -> None:
    clock = start(lambda size: 1e6)
    clock.error, clock.fails_at = error, (size, 1)
    with pytest.raises(type(error)) as raised:
        find_budget(clock.run, CPU)
    assert raised.value is error


@pytest.mark.parametrize(("share_at_4096", "largest"), [(0.49, 8192), (0.51, 4096)])
def test_a_pack_that_takes_half_of_a_devices_memory_is_not_doubled(
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[..., Clock],
    share_at_4096: float,
    largest: int,
) -> None:
    clock = start(lambda size: 1000.0 * size)
    memory = 80 * 2**30
    monkeypatch.setattr(
        torch.cuda,
        "max_memory_reserved",
        lambda *_: int(memory * share_at_4096 * max(clock.ran) / 4096),
    )
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=memory)
    )
    assert find_budget(clock.run, CUDA) == largest
    assert max(clock.ran) == largest


# Remembered -------------------------------------------------------------------------------------


def test_a_fixed_budget_is_neither_measured_nor_remembered(home: Path) -> None:
    fixed = TokenBudget("a device", CPU, 777)
    assert fixed.is_known
    assert fixed.tokens(no_run) == 777
    assert fixed.lower(700) == 350
    assert fixed.tokens(no_run) == 350
    assert list(home.iterdir()) == []
    assert not TokenBudget("a device", CPU, None).is_known


def test_a_fixed_budget_goes_before_a_remembered_one_and_leaves_it_alone(home: Path) -> None:
    measured_as(4096)
    fixed = TokenBudget("a device", CPU, 100)
    assert fixed.tokens(no_run) == 100
    fixed.lower(100)
    assert known("a device") == 4096


def test_what_was_measured_is_remembered_for_its_key_and_no_other(
    home: Path, start: Callable[..., Clock]
) -> None:
    clock = start({1024: 1e5, 2048: 1e6, 4096: 1e6, 8192: 1e6})
    first = TokenBudget("a device", CPU, None)
    assert not first.is_known
    assert clock.ran == []
    assert first.tokens(clock.run) == 2048
    assert first.is_known
    assert first.tokens(no_run) == known("a device") == 2048
    assert not TokenBudget("another device", CPU, None).is_known
    # and each key keeps its own
    second = start(lambda size: 1e6)
    assert TokenBudget("another device", CPU, None).tokens(second.run) == 1024
    assert (known("a device"), known("another device")) == (2048, 1024)


def test_a_measurement_that_fails_leaves_no_trace(home: Path, start: Callable[..., Clock]) -> None:
    clock = start(lambda size: 1e6)
    clock.error, clock.fails_at = MemoryError(), (SMALLEST, 1)
    made = TokenBudget("a device", CPU, None)
    with pytest.raises(MemoryError):
        made.tokens(clock.run)
    assert not made.is_known
    assert not TokenBudget("a device", CPU, None).is_known


@pytest.mark.parametrize(
    ("cost", "left"),
    [(4096, 2048), (3001, 1500), (9000, 2048)],
    ids=["a full pack", "the last pack", "a pack above the budget"],
)
def test_a_pack_that_did_not_fit_halves_the_budget_for_good(
    home: Path, cost: int, left: int
) -> None:
    made = measured_as(4096)
    assert made.lower(cost) == left
    assert made.tokens(no_run) == left
    assert known("a device") == left


def test_a_budget_can_be_lowered_before_it_was_measured_but_not_below_one(home: Path) -> None:
    made = TokenBudget("a device", CPU, None)
    assert made.lower(900) == 450
    assert known("a device") == 450
    for _ in range(12):
        left = made.lower(450)
    assert left == known("a device") == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b'{"a device": 40',
        b"[4096]",
        b'"a device"',
        b'{"a device": "4096"}',
        b'{"a device": null}',
        b'{"a device": -4096}',
        b'{"a device": 0}',
        b'{"a device": 4096.5}',
        b'{"a device": {"tokens": 4096}}',
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_and_written_anew(
    home: Path, start: Callable[..., Clock], content: bytes
) -> None:
    file = home / BUDGETS
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    made = TokenBudget("a device", CPU, None)
    assert not made.is_known
    assert made.tokens(start(lambda size: 1e6).run) == 1024
    assert json.loads(file.read_bytes()) == {"a device": 1024}
    assert known("a device") == 1024


def test_a_home_that_cannot_be_written_to_only_means_measuring_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, start: Callable[..., Clock]
) -> None:
    # as in a container whose user has no home of its own
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    made = TokenBudget("a device", CPU, None)
    assert made.tokens(start(lambda size: 1e6).run) == 1024
    assert made.lower(1024) == 512
    assert made.tokens(no_run) == 512
