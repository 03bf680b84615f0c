"""An audit says which rows a store has otherwise."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.index.audit import deviations, sample
from pipeline.index.layout import SINGLE
from pipeline.index.rows import Rows
from tests.index.conftest import Place
from tests.index.corpus import Corpus, names


@pytest.fixture
def kind() -> str:
    return "lancedb"


def test_what_differs_is_told_of_the_rows_it_is_in(place: Place, corpus: Corpus) -> None:
    # files of few rows are asked for together, and one of many in pieces
    sizes = [3, 5, 2, 300, 4]
    for number, size in enumerate(sizes):
        corpus.add(names(size, f"file{number}"))
    snapshot = corpus.commit()
    place.fill(snapshot)
    layout, rows = place.layout(snapshot), [Rows(part=part) for part in snapshot.parts]
    wrong = {1: "file1-4", 3: "file3-299", 4: "file4-0"}
    named = {name: number for number, name in wrong.items()}
    for some in rows:
        points = snapshot.points([some], layout, 9, None).table
        for at, name in enumerate(points["id"].to_pylist()):
            if name in named:
                other = np.zeros(layout.single.size, np.float32)  # type: ignore[union-attr]
                other[0] = 1
                place.store.upsert("docs_1", _with_vector(points.slice(at, 1), other))
    looked = list(deviations(place.store, "docs_1", snapshot, layout, rows, None))
    assert [some for some, _ in looked] == rows
    by_file = {some.part.file.path: [(one.id, one.what) for one in found] for some, found in looked}
    assert list(by_file.values()) == [
        [(wrong[number], "other single")] if number in wrong else []
        for number in _order(snapshot.parts, corpus)
    ]


def test_a_sample_is_of_so_many_rows_and_each_is_there_once(corpus: Corpus) -> None:
    for number in range(30):
        corpus.add(names(40, f"file{number}"))
    rows = [Rows(part=part) for part in corpus.commit().parts]
    chosen = sample(rows, 100, 1)
    assert sum(some.count for some in chosen) == 100
    assert len({some.part.file.path for some in chosen}) == len(chosen)
    assert sample(rows, 1_200, 1) == rows
    assert sample(rows, 0, 1) == []


def _with_vector(point: pa.Table, vector: np.ndarray) -> pa.Table:
    at = point.schema.get_field_index(SINGLE)
    kind = point.schema.field(at).type
    column = pa.FixedSizeListArray.from_arrays(pa.array(vector), type=kind)
    return point.set_column(at, point.schema.field(at), column)


def _order(parts: list, corpus: Corpus) -> list[int]:  # type: ignore[type-arg]
    """The numbers of the files, in the order of the snapshot."""
    return [int(corpus.rows[part.file.path][0]["id"][4]) for part in parts]
