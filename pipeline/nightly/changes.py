"""Changes: which rows of a source a snapshot has, and which of its rows the source has not.

Rows are compared as a multiset, by their signs: of three rows of one sign here and two there, two
are the same and one is new. Everything is numpy on arrays of 16-byte signs; what is compared in
one call may be all there is, or one of the parts into which all was divided by name. Of several
rows of one sign the first ones are paired.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.nightly.signs import fixed_bytes

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Which rows of each side have a row of the other."""

    source: Mask
    """[rows of the source]"""
    base: Mask
    """[rows of the snapshot]"""


def match(source: pa.ChunkedArray, base: pa.ChunkedArray) -> Matched:
    """Pair off equal signs.

    Args:
        source: signs of the rows of the source.
        base: signs of the rows of the snapshot.
    """
    count = len(source)
    both = np.concatenate([_words(source), _words(base)])
    of_base = np.arange(len(both)) >= count
    order = np.lexsort((of_base, both[:, 1], both[:, 0]))
    ordered = both[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    in_base = np.bincount(group, of_base[order], minlength=len(first)).astype(np.int64)
    in_source = np.bincount(group, minlength=len(first)) - in_base
    at = np.arange(len(order)) - first[group]
    at -= np.where(of_base[order], in_source[group], 0)
    paired = np.empty(len(order), np.bool_)
    paired[order] = at < np.minimum(in_source, in_base)[group]
    return Matched(source=paired[:count], base=paired[count:])


def first_of_each(contents: pa.ChunkedArray) -> NDArray[np.int64]:
    """For each content, the number of the first row that has it, [rows]."""
    words = _words(contents)
    order = np.lexsort((np.arange(len(words)), words[:, 1], words[:, 0]))
    ordered = words[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    return first


def _words(signs: pa.ChunkedArray) -> NDArray[np.uint64]:
    """As two whole numbers each, [rows, 2]."""
    plain = signs.combine_chunks() if isinstance(signs, pa.ChunkedArray) else signs
    return fixed_bytes(plain).view(np.uint64)
