"""The comparison alone: signs made from numbers, compared in one process and on Ray.

Both make the same rows and find the same differences, which are known beforehand. Making them is in
the time; it is a few additions and shifts for each.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.memory import forget_highest, highest
from benchmarks.ray_head import Head
from benchmarks.setting import Options
from benchmarks.timing import Timing, TreeClock, timed
from pipeline.nightly.base import BASE
from pipeline.nightly.compare import SCANNED, Differences, compare, together
from pipeline.nightly.signs import SIGN
from pipeline.stages.cluster import connected
from pipeline.stages.keyed import key_items, key_rows
from pipeline.stages.overseen import overseen
from pipeline.stages.ray_compare import Reading, compare_readings

_CHANGED = 100
"""Every how many rows one has changed."""
_UNIT, _PART, _BLOCK = 1 << 10, 1 << 10, 1 << 16
"""Rows of a unit, of a file, and of what one task makes."""
_STALL = 900.0


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What it took to compare so many signs."""

    here: list[Timing]
    on_ray: list[Timing]
    bytes_per_row: dict[str, float]
    """Memory of the driver at its highest, less what it had before, by program."""
    shuffled: float
    """Bytes of a row of the source and one of the snapshot, as they are divided by name."""


def measure(rows: int, options: Options, head: Head) -> Compared:
    """Compare so many rows with as many, in turns."""
    blocks = [range(at, min(rows, at + _BLOCK)) for at in range(0, rows, _BLOCK)]
    readings = [_reading(make, block) for make in (_keyed_items, _keyed_rows) for block in blocks]
    runs: dict[str, list[Timing]] = {"here": [], "on_ray": []}
    memory: dict[str, float] = {}
    with TreeClock([os.getpid(), head.process]) as clock, connected(head.address):
        programs: dict[str, Callable[[], Differences]] = {
            # first, since memory that was held once is not given back
            "on_ray": partial(_on_ray, readings),
            "here": partial(_here, blocks),
        }
        for _ in range(options.repeats):
            for name, program in programs.items():
                found: list[Differences] = []
                before = forget_highest()
                runs[name].append(timed(lambda p=program, f=found: f.append(p()), clock))
                memory.setdefault(name, (highest() - before) / rows)
                _demand_right(found[0], rows)
    shuffled = (_keyed_items(blocks[0]).nbytes + _keyed_rows(blocks[0]).nbytes) / len(blocks[0])
    return Compared(**runs, bytes_per_row=memory, shuffled=shuffled)


def _here(blocks: list[range]) -> Differences:
    source, base = (pa.concat_tables(map(make, blocks)) for make in (_items, _rows))
    return together([compare(source, base, keep_gone=False)])


def _on_ray(readings: list[Reading]) -> Differences:
    execute = partial(compare_readings, readings, False)
    return together(overseen(execute, watch=lambda tallies: None, stall=_STALL))


def _demand_right(found: Differences, rows: int) -> None:
    """Refuse to report the cost of a comparison that is wrong."""
    changed = len(range(0, rows, _CHANGED))
    counts = (found.counts.changed, found.counts.carried, found.counts.new, found.counts.gone)
    if counts != (changed, rows - changed, 0, 0):
        raise SystemExit(f"{changed:,} of {rows:,} rows have changed, and found was {counts}")


def _reading(make: Callable[[range], pa.Table], block: range) -> Reading:
    return Reading(
        name=f"{make.__name__} {block.start}", rows=len(block), read=partial(_made, make, block)
    )


def _made(make: Callable[[range], pa.Table], block: range) -> Iterable[pa.Table]:
    yield make(block)


def _keyed_items(block: range) -> pa.Table:
    return key_items(_items(block))


def _keyed_rows(block: range) -> pa.Table:
    return key_rows(_rows(block))


def _items(block: range) -> pa.Table:
    """Of the source."""
    number = np.arange(block.start, block.stop)
    is_changed = number % _CHANGED == 0
    columns = {
        "unit": (number // _UNIT).astype(np.int32),
        "row": number,
        "modality": pa.array(["text"] * len(number)),
        "siblings": np.full(len(number), _UNIT, np.int32),
    } | _signs(number, is_changed)
    return pa.table([columns[name] for name in SCANNED.names], schema=SCANNED)


def _rows(block: range) -> pa.Table:
    """Of the snapshot."""
    number = np.arange(block.start, block.stop)
    columns = {
        "part": (number // _PART).astype(np.int32),
        "at": (number % _PART).astype(np.int32),
    } | _signs(number, np.zeros(len(number), np.bool_))
    return pa.table([columns[name] for name in BASE.names], schema=BASE)


def _signs(number: NDArray[np.int64], is_changed: NDArray[np.bool_]) -> dict[str, pa.Array]:
    content = number.astype(np.uint64) * np.uint64(2) + is_changed
    return {
        "sign": _hashes(content, 1),
        "content": _hashes(content, 2),
        "name": _hashes(number.astype(np.uint64), 3),
    }


def _hashes(number: NDArray[np.uint64], kind: int) -> pa.Array:
    """Of numbers, in 16 bytes each, spread as hashes are (the end of splitmix64)."""
    words_R2 = np.stack([number, number], axis=1) + np.array([kind, kind + 16], np.uint64) * (
        np.uint64(0x9E3779B97F4A7C15)
    )
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words_R2 = (words_R2 ^ (words_R2 >> np.uint64(shift))) * np.uint64(factor)
    words_R2 ^= words_R2 >> np.uint64(31)
    return pa.FixedSizeBinaryArray.from_buffers(
        SIGN, len(number), [None, pa.py_buffer(np.ascontiguousarray(words_R2))]
    )
