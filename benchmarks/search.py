"""Exact search of a snapshot beside a bare matrix-vector product of numpy's.

The product is of one array in memory that has all vectors: nothing is chosen, ordered or fetched.
Ours is the whole search of an opened snapshot, its files mapped: the ten nearest with all that they
carry, without a filter and with one that leaves half of the rows.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.random_dataset import commit_random_dataset
from benchmarks.record import Comparison, write_result
from benchmarks.setting import OURS, options_of, parser, scratch
from benchmarks.timing import Program, interleave, timed
from pipeline import open_dataset
from pipeline.index.exact import ExactSearch
from pipeline.index.filters import Condition, parse_filter
from pipeline.index.rows import Snapshot
from pipeline.index.store import Question

NUMPY, FILTERED = "numpy, matrix @ vector", "nightjar, with a filter"
_DIM, _BEST, _QUERIES = 2048, 10, 20
_BOUND = 1e-5
_FILTER = "year < 2013"


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure, print a table, and return the record's file."""
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=100_000, help="of 2,048 float32 each")
    parsed = made.parse_args(arguments)
    options = options_of(parsed)
    rows = 2_500 if options.quick else parsed.rows
    random = np.random.default_rng(options.seed + 1)
    queries = random.standard_normal((_QUERIES, _DIM), np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    with scratch(options) as folder:
        commit_random_dataset(folder, rows, _DIM, options.seed)
        dataset = open_dataset(str(folder))
        matrix = _matrix(dataset.to_table(columns=["embedding"])["embedding"])
        exact = ExactSearch(Snapshot.of(dataset))
        # not timed against the product: the files are looked at for the first time
        first = timed(partial(_search, exact, queries[:1], None), lambda: 0.0).wall
        _demand_equal(exact, matrix, queries[0])
        programs: dict[str, Program] = {
            OURS: partial(_search, exact, queries, None),
            FILTERED: partial(_search, exact, queries, parse_filter(_FILTER)),
            NUMPY: lambda: [matrix @ query for query in queries],
        }
        timings = interleave(programs, options.repeats)
    comparison = Comparison(
        name=f"{_QUERIES} searches of {rows:,} x {_DIM:,}",
        baseline=NUMPY,
        timings=timings,
        work={"rows": rows, "searches": _QUERIES, "bytes": matrix.nbytes},
    )
    config = {"rows": rows, "dim": _DIM, "best": _BEST, "first_search_seconds": first}
    return write_result("search", options, [comparison], config)


def _search(exact: ExactSearch, queries: NDArray[np.float32], condition: Condition | None) -> None:
    for query in queries:
        exact.search(Question(using="single", vectors=query[None], most=_BEST, condition=condition))


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """[N, D] a copy of all vectors."""
    flat = column.combine_chunks().flatten().to_numpy()
    return np.ascontiguousarray(flat).reshape(-1, _DIM)


def _demand_equal(
    exact: ExactSearch, matrix: NDArray[np.float32], query: NDArray[np.float32]
) -> None:
    """Refuse to compare searches that find different things.

    Raises:
        SystemExit: says how far they are apart.
    """
    found = exact.search(Question(using="single", vectors=query[None], most=_BEST))
    best = np.sort(matrix @ query)[::-1][:_BEST]
    apart = float(np.abs([hit.score for hit in found] - best).max())
    if not apart <= _BOUND:
        raise SystemExit(f"the scores of the nearest differ by {apart:.1e}: nothing is compared")


if __name__ == "__main__":
    main()
