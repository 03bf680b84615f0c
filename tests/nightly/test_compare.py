"""All at once or divided by name, in whatever order: a comparison comes to the same."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.nightly.base import BASE
from pipeline.nightly.compare import SCANNED, Differences, compare, together
from pipeline.stages.keyed import KEYS, key_items, key_rows, sides_of

# (name, content, the rest of the sign); few of each, so that they meet
_ROW = st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 1))
_ITEMS = st.lists(_ROW | st.none(), max_size=20)
_ROWS = st.lists(_ROW, max_size=20)
_ORDER = st.randoms(use_true_random=False)


def _signs(row: tuple[int, int, int] | None) -> dict[str, bytes | None]:
    if row is None:
        return dict.fromkeys(("sign", "content", "name"))
    name, content, rest = row
    return {
        "sign": bytes([name, content, rest]) * 5 + b"s",
        "content": bytes([content]) * 16,
        # alike in one half
        "name": bytes([1] * 8 + [name] * 8),
    }


def _scanned(items: list[Any]) -> pa.Table:
    rows = [
        {"unit": n // 3, "row": n, "modality": item and "text", "siblings": 3, **_signs(item)}
        for n, item in enumerate(items)
    ]
    return pa.Table.from_pylist(rows, SCANNED)


def _base(rows: list[Any]) -> pa.Table:
    made = [{"part": n // 4, "at": n % 4, **_signs(row)} for n, row in enumerate(rows)]
    return pa.Table.from_pylist(made, BASE)


def _plain(found: Differences) -> list[Any]:
    tables = (found.todo, found.dead, found.kept)
    return [*(table.to_pylist() for table in tables), found.counts, found.items]


@given(items=_ITEMS, rows=_ROWS, keep_gone=st.booleans(), order=_ORDER)
def test_divided_by_name_and_shuffled_it_comes_to_the_same(
    items: list[Any], rows: list[Any], keep_gone: bool, order: Any
) -> None:
    whole = together([compare(_scanned(items), _base(rows), keep_gone=keep_gone)])
    keyed = pa.concat_tables([key_items(_scanned(items)), key_rows(_base(rows))])
    at = list(range(keyed.num_rows))
    order.shuffle(at)
    keyed = keyed.take(pa.array(at, pa.int64()))
    partition = sum(keyed[key].to_numpy().astype(np.uint64) for key in KEYS) % np.uint64(3)
    parts = [
        compare(*sides_of(keyed.filter(pa.array(partition == n))), keep_gone=keep_gone)
        for n in range(3)
    ]
    order.shuffle(parts)
    assert _plain(together(parts)) == _plain(whole)


@given(items=_ITEMS, rows=_ROWS)
def test_what_differs_is_told_and_nothing_else(items: list[Any], rows: list[Any]) -> None:
    found = together([compare(_scanned(items), _base(rows), keep_gone=True)])
    well = Counter(item for item in items if item is not None)
    todo = Counter(items[row] for row in found.todo["row"].to_pylist())
    faulty = {None: items.count(None)} if None in items else {}
    assert todo == (well - Counter(rows)) + Counter(faulty)
    dead = [rows[row["part"] * 4 + row["at"]] for row in found.dead.to_pylist()]
    assert Counter(dead) == Counter(rows) - well
    names = {item[0] for item in well}
    kept = [rows[row["part"] * 4 + row["at"]] for row in found.kept.to_pylist()]
    assert kept == [row for row in dead if row[0] not in names]
    counts, left = found.counts, {item[0] for item in todo if item is not None}
    assert (found.items, counts.carried) == (len(items), len(rows) - len(dead))
    assert counts.gone == len({row[0] for row in dead} - left)
    assert counts.new + counts.changed + counts.updated == sum((well - Counter(rows)).values())


@given(items=_ITEMS, rows=_ROWS)
def test_nothing_is_lost_under_a_key(items: list[Any], rows: list[Any]) -> None:
    keyed = pa.concat_tables([key_rows(_base(rows)), key_items(_scanned(items))])
    scanned, base = sides_of(keyed)
    assert scanned.equals(_scanned(items))
    assert base.equals(_base(rows))


def test_faulty_items_do_not_meet_in_one_partition() -> None:
    keyed = key_items(_scanned([None] * 9))
    assert len(set(zip(*(keyed[key].to_pylist() for key in KEYS), strict=True))) == 9
