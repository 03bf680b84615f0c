"""Points: named by what they are of, stamped with what they hold, cut to what a store takes."""

import datetime
import decimal
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SpecError
from pipeline.index.layout import (
    MULTI,
    POINT,
    SINGLE,
    STAMP,
    TEXT,
    Layout,
    layout_of,
    payload_type,
)
from pipeline.index.points import ORIGIN_FILE, ORIGIN_ROW, as_payload, pooled, stamps
from pipeline.index.rows import Rows
from pipeline.index.scoring import maxsim_of
from pipeline.index.spec import VectorStoreSpec
from tests.index.conftest import Place
from tests.index.corpus import MULTI_DIM, Corpus, names, schema_of

_TEXTS = Layout(
    single=None, multi=None, payload=(("a", TEXT), ("b", TEXT)), indexed=(), approximate=False
)
_CELL = st.one_of(st.none(), st.text(max_size=4), st.sampled_from([":", "-", "1:", "0:x"]))


def _stamp(a: str | None, b: str | None, file: str = "data/f", row: int = 0) -> int:
    rows = pa.table(
        {
            "a": pa.array([a], TEXT),
            "b": pa.array([b], TEXT),
            ORIGIN_FILE: [file],
            ORIGIN_ROW: pa.array([row], pa.int32()),
        }
    )
    return int(stamps(rows, _TEXTS)[0])


@given(one=st.tuples(_CELL, _CELL), other=st.tuples(_CELL, _CELL))
def test_rows_have_one_stamp_only_if_they_hold_the_same(
    one: tuple[str | None, str | None], other: tuple[str | None, str | None]
) -> None:
    assert (_stamp(*one) == _stamp(*other)) == (one == other)


def test_a_stamp_changes_with_the_place_of_the_vectors() -> None:
    assert (
        len({_stamp("a", "b", file, row) for file in ("data/f", "data/g") for row in (0, 1)}) == 4
    )


def test_payload_is_made_of_few_types(corpus: Corpus) -> None:
    spec = VectorStoreSpec(kind="lancedb", url="x", collection="docs")
    kinds = {name: str(kind) for name, kind in layout_of(corpus.schema, spec).payload}
    assert kinds == {
        "id": "string",
        "modality": "string",
        "task": "string",
        "title": "string",
        "year": "int64",
        "weight": "double",
        "draft": "bool",
        "seen": "timestamp[us, tz=UTC]",
        "tags": "string",
    }


@pytest.mark.parametrize(
    ("cells", "kind", "wanted"),
    [
        ([b"\x01\xff", None], pa.binary(), ["01ff", None]),
        ([["a", "ü"], None], pa.list_(pa.string()), ['["a", "ü"]', None]),
        ([{"when": datetime.datetime(2024, 1, 2)}], None, ['{"when": "2024-01-02 00:00:00"}']),
        ([1, None], pa.uint8(), [1, None]),
        ([2**63], pa.uint64(), [str(2**63)]),
        ([1.5, float("nan")], pa.float16(), [1.5, None]),
        ([decimal.Decimal("1.25")], pa.decimal128(5, 2), [1.25]),
        (["x", "x"], pa.dictionary(pa.int8(), pa.string()), ["x", "x"]),
        (
            [datetime.date(2024, 1, 2)],
            pa.date32(),
            [datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)],
        ),
    ],
)
def test_any_column_can_be_payload(cells: list[Any], kind: Any, wanted: list[Any]) -> None:
    column = pa.chunked_array([pa.array(cells, kind)])
    assert as_payload(column, payload_type(column.type)).to_pylist() == wanted


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"payload": ["nope"]},
            r"store\.payload: the dataset has no column 'nope'; it has id, mod",
        ),
        ({"payload": ["title"], "index": ["year"]}, r"store\.index: 'year' is no column of the pa"),
        (
            {"dim": 17},
            r"store\.dim: 17 is more than the 16 numbers of the dataset's single vectors",
        ),
    ],
)
def test_what_a_dataset_has_not_is_refused_in_a_sentence(
    keys: dict[str, Any], sentence: str
) -> None:
    spec = VectorStoreSpec(kind="lancedb", url="x", collection="docs", **keys)
    with pytest.raises(SpecError, match=sentence):
        layout_of(schema_of(), spec)


def test_single_vectors_are_cut_and_have_length_one_again(corpus: Corpus) -> None:
    corpus.add(names(5))
    snapshot = corpus.commit()
    spec = VectorStoreSpec(kind="lancedb", url="x", collection="docs", dim=4)
    layout = layout_of(snapshot.schema, spec)
    table = snapshot.points([Rows(part=snapshot.parts[0])], layout, 1, None).table
    full = np.stack([row["embedding"] for row in corpus.living()])[:, :4]
    wanted = full / np.linalg.norm(full, axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack(table[SINGLE].to_pylist()), wanted, atol=1e-6)


def _multi(lengths: list[int]) -> pa.ListArray:
    random = np.random.default_rng(3)
    rows = []
    for length in lengths:
        vectors = random.standard_normal((length, 4)).astype(np.float32)
        rows.append(list(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
    return pa.array(rows, pa.list_(pa.list_(pa.float32(), 4)))


@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=6), most=st.integers(1, 8))
def test_pooled_vectors_fit_have_length_one_and_short_ones_are_left_alone(
    lengths: list[int], most: int
) -> None:
    multi = _multi(lengths)
    found = pooled(multi, most)
    for before, after in zip(multi.to_pylist(), found.to_pylist(), strict=True):
        assert len(after) <= most
        if len(before) <= most:
            assert after == before
        else:
            np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)
    assert found.type == multi.type


def test_neighbours_that_cancel_each_other_out_are_no_nan() -> None:
    kind = pa.list_(pa.list_(pa.float16(), 2))
    found = pooled(pa.array([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]], kind), 2)
    assert found.to_pylist() == [[[1.0, 0.0], [0.0, 1.0]]]


@pytest.fixture
def bounded(place: Place) -> Place:
    """A store whose points take three vectors of a multi-vector."""
    place.store.bounds = replace(place.store.bounds, numbers_per_multi=3 * MULTI_DIM)
    return place


def _long(corpus: Corpus, count: int = 20) -> dict[str, int]:
    """Rows of 1 to 8 vectors; how many each has."""
    corpus.add(names(count))
    return {row["id"]: len(row["multivector"]) for row in corpus.living()}


def test_documents_with_too_many_vectors_are_pooled_and_told(
    bounded: Place, corpus: Corpus
) -> None:
    if "multi" not in bounded.spec.vectors:
        return
    lengths = _long(corpus)
    report = bounded.fill(corpus.commit())
    assert report.shortened == sum(length > 3 for length in lengths.values()) > 0
    assert report.points == 20


def test_documents_with_too_many_vectors_are_split_and_nothing_is_lost(
    bounded: Place, corpus: Corpus
) -> None:
    if "multi" not in bounded.spec.vectors:
        return
    place = bounded.with_keys(too_long="split")
    lengths = _long(corpus)
    snapshot = corpus.commit()
    report = place.fill(snapshot)
    parts = {name: -(-length // 3) for name, length in lengths.items()}
    assert report.points == sum(parts.values())
    layout = place.layout(snapshot)
    points = pa.concat_tables(place.store.scan("docs_1"))[POINT].to_pylist()
    found = place.store.fetch("docs_1", layout, points)
    query = np.eye(MULTI_DIM, dtype=np.float32)[:1]
    best: dict[str, float] = {}
    for name, score in zip(
        found["id"].to_pylist(), maxsim_of(query, found[MULTI]).tolist(), strict=True
    ):
        best[name] = max(score, best.get(name, -2.0))
    for row in corpus.living():
        wanted = max(float(vector[0]) for vector in row["multivector"])
        assert best[row["id"]] == pytest.approx(wanted, abs=1e-3)


def test_a_document_that_is_gone_leaves_none_of_its_parts(bounded: Place, corpus: Corpus) -> None:
    if "multi" not in bounded.spec.vectors:
        return
    place = bounded.with_keys(too_long="split")
    lengths = _long(corpus)
    place.fill(corpus.commit())
    (path,) = corpus.parts
    longest = max(lengths, key=lambda name: lengths[name])
    corpus.bury(path, names(20).index(longest))
    report = place.fill(corpus.commit())
    assert (report.how, report.deleted) == ("difference", -(-lengths[longest] // 3))
    ids = place.store.scan("docs_1")
    assert sum(table.num_rows for table in ids) == report.points
    assert place.fill(corpus.snapshot(), again=[]).written == 0


def test_stamps_do_not_depend_on_how_rows_are_read(corpus: Corpus) -> None:
    path = corpus.add(names(10))
    snapshot = corpus.commit()
    spec = VectorStoreSpec(kind="lancedb", url="x", collection="docs")
    layout = layout_of(snapshot.schema, spec)
    (part,) = snapshot.parts
    whole = snapshot.points([Rows(part=part)], layout, 1, None).table
    corpus.bury(path, 0, 1)
    later = corpus.commit()
    at = np.array([4, 7])
    some = later.points([Rows(part=later.parts[0], at=at)], layout, 2, None).table
    assert some.select([POINT, STAMP]).equals(whole.select([POINT, STAMP]).take(pa.array(at)))
