"""Which vectors may be written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.health import unsound
from pipeline.model.outputs import Embeddings
from pipeline.soundness import of_unit_length

_BAD = [np.nan, np.inf, -np.inf, 0.0, 0.97, 1.03, 3e38]


def _unit(count: int, size: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(dtype)


@given(st.integers(1, 300), st.sampled_from([1, 2, 128, 2048]), st.integers(0, 2**32 - 1))
def test_normalised_vectors_are_sound_in_both_dtypes(count: int, size: int, seed: int) -> None:
    for dtype in ("float32", "float16"):
        assert of_unit_length(_unit(count, size, dtype, seed)).all()


@pytest.mark.parametrize("bad", _BAD, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_only_the_bad_vector_is_unsound(bad: float, dtype: str) -> None:
    vectors = _unit(5, 16, dtype)
    with np.errstate(over="ignore"):
        vectors[3] = vectors[3] * np.float32(bad) if np.isfinite(bad) else vectors[3]
    if not np.isfinite(bad):
        vectors[3, 7] = bad
    assert of_unit_length(vectors).tolist() == [True, True, True, False, True]


def test_an_item_is_unsound_when_any_of_its_vectors_is() -> None:
    found = Embeddings(
        singles={16: _unit(5, 16), 8: _unit(5, 8)},
        multi=[_unit(length, 4) for length in (3, 1, 0, 2, 4)],
        n_tokens=np.array([3, 1, 0, 2, 4], np.int32),
        truncated=np.zeros(5, np.bool_),
        faults={},
    )
    assert unsound(found) == []
    found.singles[8][1, 0] = np.nan
    assert found.multi is not None
    found.multi[3][1] = 0
    found.multi[4][3, 2] = np.inf
    assert unsound(found) == [1, 3, 4]
