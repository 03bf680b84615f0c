"""Vectors that may be written: finite and of length one.

A bit that flips in a weight, a division by zero or an overflow in 16 bits gives NaN, zeros or a
wrong length, and all of them look like vectors to whoever searches them.

Legend: B items, N vectors, D size of a vector.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.model.outputs import Embeddings

_TOLERANCE = 5e-3
"""Of a length: float16 rounds one by at most 5e-4."""


def of_unit_length(vectors_ND: NDArray[np.floating]) -> NDArray[np.bool_]:
    """[N] whether each vector is finite and of length one."""
    with np.errstate(invalid="ignore", over="ignore"):
        exact_ND = vectors_ND.astype(np.float32, copy=False)
        lengths_N = np.sqrt(np.einsum("nd,nd->n", exact_ND, exact_ND))
        # NaN is not below anything
        well_N: NDArray[np.bool_] = np.abs(lengths_N - 1) <= _TOLERANCE
    return well_N


def unsound(found: Embeddings) -> list[int]:
    """Items with a vector that may not be written, but for those that were given up."""
    well_B = np.ones(len(found.n_tokens), np.bool_)
    for single_BD in found.singles.values():
        well_B &= of_unit_length(single_BD)
    if found.multi:
        lengths = np.array([len(vectors) for vectors in found.multi])
        well_N = of_unit_length(np.concatenate(found.multi))
        of_item_N = np.repeat(np.arange(len(lengths)), lengths)
        well_B[of_item_N[~well_N]] = False
    return [int(index) for index in np.flatnonzero(~well_B) if index not in found.faults]
