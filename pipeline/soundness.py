"""Vectors that may be written, and those that may be published: finite and of length one.

A bit that flips in a weight, a division by zero or an overflow in 16 bits gives NaN, zeros or a
wrong length, and all of them look like vectors to whoever searches them.

Legend: N vectors, D size of a vector.
"""

import numpy as np
from numpy.typing import NDArray

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
