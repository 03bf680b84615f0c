"""The nearest documents are those of a sort of all scores, however the rows come in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.index.nearest import Nearest

_QUERIES = 3
_ROWS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5]), min_size=_QUERIES, max_size=_QUERIES),
    ),
    min_size=1,
    max_size=30,
)
"""Of which document each row is, and its score for each query."""


@given(
    rows=_ROWS,
    most=st.integers(1, 12),
    at_once=st.integers(1, 30),
    barred=st.lists(st.integers(-1, 10), min_size=_QUERIES, max_size=_QUERIES),
)
def test_a_document_is_as_near_as_its_nearest_row_and_of_equal_ones_the_lower_is_first(
    rows: list[tuple[int, list[float]]], most: int, at_once: int, barred: list[int]
) -> None:
    found = Nearest(_QUERIES, most, np.array(barred))
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        scores = np.array([of for _, of in some], np.float32).T
        found.add(scores, np.array([document for document, _ in some]))
    for query, ranking in enumerate(found.rankings()):
        best: dict[int, float] = {}
        for document, of in rows:
            if document != barred[query] and of[query] > -np.inf:
                best[document] = max(of[query], best.get(document, -np.inf))
        wanted = sorted(best, key=lambda document: (-best[document], document))
        assert ranking.tolist() == wanted[:most]
