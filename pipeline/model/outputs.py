"""What an engine is asked for, and what it gives.

Legend: B items, T_i tokens of item i, D size of a vector of a multi-vector.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import RowError

VECTOR_DTYPES = {"float32": torch.float32, "float16": torch.float16}
"""What vectors may be rounded to, by the name in a spec."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What is wanted of each item."""

    dims: tuple[int, ...]
    """Sizes of the single vectors, each one of matryoshka_dims; empty for none."""
    multi: bool
    """Whether to make multi-vectors."""
    multi_dtype: torch.dtype = torch.float32
    """What they are rounded to, on the device."""


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Vectors of a list of items, in its order."""

    singles: dict[int, NDArray[np.float32]]
    """By size, as asked for: [B, size], L2-normalised."""
    multi: list[NDArray[np.floating]] | None
    """B arrays [T_i, D], each row L2-normalised; None when not asked for."""
    n_tokens: NDArray[np.int32]
    """[B] tokens that were embedded, prompt included."""
    truncated: NDArray[np.bool_]
    """[B] whether the text was cut."""
    faults: dict[int, RowError]
    """Items that were given up; their vectors are zero, their multi-vectors empty."""

    @property
    def single(self) -> NDArray[np.float32]:
        """[B, size]: the single vectors of the first size asked for.

        Raises:
            LookupError: none was asked for.
        """
        if not self.singles:
            raise LookupError("no single vectors were asked for")
        return next(iter(self.singles.values()))
