"""Graded: two short descriptions, and how close the teacher says they are.

One of two comes with one of its nearest, the other with any. The first of the two is in any
language that it has been translated to, so that what is close is so whatever its language.

Legend: N sentences, B of them at once, K nearest of each.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.nano.debian import Package
from pipeline.nano.teacher import Taught

_NEAREST = 24
"""Of a sentence's nearest, one is taken to be graded with it."""

_AT_ONCE = 512
"""Sentences whose cosines with all others are held at a time."""


def grade(packages: Sequence[Package], taught: Taught, seed: int = 0) -> pa.Table:
    """A pair for each distinct short description: query, positive, family and grade."""
    random = np.random.default_rng(seed)
    distinct = {package.english.short: package for package in packages}
    sentences = list(distinct)
    vectors_ND = taught.of(sentences).astype(np.float32)
    rows = []
    for first in range(0, len(sentences), _AT_ONCE):
        cosines_BN = vectors_ND[first : first + _AT_ONCE] @ vectors_ND.T
        order_BN = np.argpartition(-cosines_BN, _NEAREST)
        for number, (cosines_N, order_N) in enumerate(
            zip(cosines_BN, order_BN, strict=True), start=first
        ):
            is_near = random.random() < 0.5
            other = int(random.choice(order_N[:_NEAREST] if is_near else order_N))
            if other == number:
                continue
            package = distinct[sentences[number]]
            said = [package.english, *package.translated.values()]
            rows.append(
                {
                    "query": said[int(random.integers(len(said)))].short,
                    "positive": sentences[other],
                    "family": package.family,
                    "grade": float(cosines_N[other]),
                }
            )
    return pa.Table.from_pylist(rows)
