"""Which rows each side has alone: a multiset difference, by signs of 16 bytes."""

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.nightly.changes import first_of_each, match
from pipeline.nightly.signs import SIGN

# few, and some alike in one half
_SIGNS = st.sampled_from([bytes([a] * 8 + [b] * 8) for a in range(3) for b in range(3)])
_MANY = st.lists(_SIGNS, max_size=30)


def _column(signs: list[bytes]) -> pa.ChunkedArray:
    half = len(signs) // 2
    return pa.chunked_array([pa.array(signs[:half], SIGN), pa.array(signs[half:], SIGN)])


@given(source=_MANY, base=_MANY)
def test_what_is_left_of_each_side_is_the_difference_of_multisets(
    source: list[bytes], base: list[bytes]
) -> None:
    found = match(_column(source), _column(base))
    left = Counter(s for s, paired in zip(source, found.source, strict=True) if not paired)
    extra = Counter(s for s, paired in zip(base, found.base, strict=True) if not paired)
    assert left == Counter(source) - Counter(base)
    assert extra == Counter(base) - Counter(source)


@given(contents=_MANY, start=st.integers(0, 5))
def test_the_first_of_each_content_is_found_also_in_a_slice(
    contents: list[bytes], start: int
) -> None:
    column = _column(contents).slice(start)
    expected = [contents[start:].index(content) for content in contents[start:]]
    assert first_of_each(column).tolist() == expected


def test_nothing_matches_nothing() -> None:
    found = match(_column([]), _column([]))
    assert (found.source.tolist(), found.base.tolist()) == ([], [])
    assert first_of_each(_column([])).dtype == np.int64
