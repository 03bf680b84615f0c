"""A dataset held against what must be in it: every item once, every vector equal, nothing more."""

from collections import Counter

import numpy as np
import pyarrow as pa

from pipeline.dataset import Dataset
from tests.chaos.corpus import Expected

_ITEM = ["id", "modality", "task"]
_TOLERANCES = {"embedding": 1e-5, "multivector": 1e-3}
"""Other packs round otherwise; multi-vectors are written as float16."""


def demand_expected(found: Dataset, expected: Expected) -> None:
    """Every item of the corpus is there once, embedded or set aside, and nothing else is."""
    items = found.to_table(columns=_ITEM)
    embedded = Counter(zip(*(items[name].to_pylist() for name in _ITEM), strict=True))
    assert embedded - expected.embedded == Counter(), "there twice, or of no row"
    assert expected.embedded - embedded == Counter(), "lost"
    aside = found.quarantine()
    reasons = Counter(zip(aside["id"].to_pylist(), aside["reason"].to_pylist(), strict=True))
    assert reasons == expected.quarantined


def demand_equal(found: Dataset, oracle: Dataset) -> None:
    """The dataset holds what one process without Ray has made of the same corpus."""
    order = [(name, "ascending") for name in _ITEM]
    ours, theirs = (dataset.to_table().sort_by(order) for dataset in (found, oracle))
    exact = [name for name in ours.column_names if name not in _TOLERANCES]
    assert ours.select(exact).equals(theirs.select(exact))
    for name, tolerance in _TOLERANCES.items():
        one, other = (_numbers(table[name].combine_chunks()) for table in (ours, theirs))
        assert np.abs(one - other).max() <= tolerance, name
    rejected, wanted = (
        dataset.quarantine().sort_by([("locator", "ascending"), ("modality", "ascending")])
        for dataset in (found, oracle)
    )
    assert rejected.equals(wanted)


def _numbers(vectors: pa.Array) -> np.ndarray:
    while isinstance(vectors, pa.ListArray | pa.FixedSizeListArray):
        vectors = vectors.flatten()
    return vectors.to_numpy(zero_copy_only=False).astype(np.float32)
