"""Which items of an answer have a vector that may not be written.

Legend: B items, N vectors.
"""

import numpy as np

from pipeline.model.outputs import Embeddings
from pipeline.soundness import of_unit_length


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
