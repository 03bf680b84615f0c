"""What the gate measures, each against its definition or by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.folder import Folder
from pipeline.fragments import put_table
from pipeline.manifest import DATA, Part
from pipeline.nightly.evidence import SAMPLE, Look, look_at, spread, total
from pipeline.nightly.gate import near_identical, shift
from pipeline.nightly.quality import Question, graded, means, search
from pipeline.nightly.queries import Query
from pipeline.schema import output_schema, vector_fields
from pipeline.work import WrittenFile

_SCHEMA = output_schema(
    pa.int64(),
    [],
    vector_fields(dim=[4, 8], single_dtype="float32", multi_dim=4, multi_dtype="float16"),
    {},
)


def _directions(rows: int, size: int, seed: int, about: float = 0.0) -> NDArray[np.float32]:
    """Vectors of length one, around one direction the more the larger `about` is."""
    vectors = np.random.default_rng(seed).normal(size=(rows, size))
    vectors[:, 0] += about
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99), st.floats(0, 3), st.floats(-3, 3))
def test_the_shift_is_what_its_definition_says(
    new: int, old: int, seed: int, about: float, elsewhere: float
) -> None:
    x, y = _directions(new, 5, seed, about), _directions(old, 5, seed + 1, elsewhere)
    xx = np.mean([x[i] @ x[j] for i in range(new) for j in range(new) if i != j])
    yy = np.mean([y[i] @ y[j] for i in range(old) for j in range(old) if i != j])
    xy = np.mean([a @ b for a in x for b in y])
    apart = np.mean([((y[i] - y[j]) ** 2).sum() for i in range(old) for j in range(old) if i != j])
    assert shift(x, y) == pytest.approx(np.sqrt(max(xx + yy - 2 * xy, 0) / apart), abs=1e-3)


def test_the_shift_of_few_from_many_of_one_kind_is_small_and_of_another_is_large() -> None:
    many = _directions(2000, 64, 0, about=3)
    for seed in range(20):
        assert shift(_directions(32, 64, seed + 1, about=3), many) < 0.2
        assert shift(_directions(32, 64, seed + 1, about=-3), many) > 0.5


def test_vectors_that_are_as_good_as_equal_are_counted_unless_their_contents_are_one() -> None:
    vectors = _directions(8, 16, 0)
    vectors[1], vectors[2], vectors[3] = vectors[0], vectors[0], vectors[4]
    contents = [bytes([n]) for n in range(8)]
    assert near_identical(vectors, contents) == 5 / 8
    contents[3] = contents[4]
    assert near_identical(vectors, contents) == 3 / 8
    assert near_identical(_directions(8, 16, 0), contents) == 0
    assert near_identical(np.full((8, 16), np.nan, np.float32), contents) == 0


@given(st.lists(st.integers(1, 9000), max_size=9), st.integers(1, 3000))
def test_what_is_taken_along_is_spread_evenly_over_all_rows(sizes: list[int], most: int) -> None:
    parts = [_part(f"data/f/{n}", size) for n, size in enumerate(sizes)]
    looks = spread(parts, most)
    assert [look.part for look in looks] == parts
    assert sum(look.rows for look in looks) == min(most, sum(sizes))
    for look in looks:
        assert abs(look.rows - look.part.rows * min(1, most / sum(sizes))) < 1.001


def _part(path: str, rows: int, dead: tuple[int, ...] = ()) -> Part:
    file = WrittenFile(path=path, sha256="", size=0, rows=rows)
    return Part(kind=DATA, shard="s", unit="u", adapter="retrieval", file=file, dead=dead)


def _written(
    folder: Folder,
    small: NDArray[np.float32],
    large: NDArray[np.float32],
    multi: list[NDArray[np.float32]],
    tasks: list[str] | None = None,
    start: int = 0,
) -> Part:
    rows = len(small)
    columns = {
        "id": pa.array(range(start, start + rows)),
        "modality": pa.array(["text"] * rows),
        "task": pa.array(tasks or ["retrieval.passage"] * rows),
        "n_tokens": pa.array([3] * rows, pa.int32()),
        "truncated": pa.array([False] * rows),
        "source_hash": pa.array([bytes([n]) * 32 for n in range(rows)], pa.binary(32)),
        "embedding_4": pa.array(list(small), _SCHEMA.field("embedding_4").type),
        "embedding_8": pa.array(list(large), _SCHEMA.field("embedding_8").type),
        "multivector": pa.array(
            [[list(v) for v in some.astype(np.float16)] for some in multi],
            _SCHEMA.field("multivector").type,
        ),
    }
    table = pa.table(list(columns.values()), schema=_SCHEMA)
    written = put_table(folder, DATA, "f" * 64, "u", table)
    return replace(_part(written.path, rows), file=written)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0, 3.0])
@pytest.mark.parametrize("where", ["small", "large", "multi"])
def test_a_vector_that_is_not_sound_is_seen_wherever_it_is(
    folder: Folder, wrong: float, where: str
) -> None:
    small, large = _directions(5, 4, 0), _directions(5, 8, 1)
    multi = [_directions(n + 1, 4, n) for n in range(5)]
    well = look_at(_SCHEMA, folder, Look(part=_written(folder, small, large, multi), rows=5))
    assert (well.rows, well.unsound) == (5, 0)
    broken = {"small": small[2], "large": large[2], "multi": multi[2][1]}[where]
    broken *= wrong
    part = _written(folder, small, large, multi)
    assert look_at(_SCHEMA, folder, Look(part=part, rows=0)).unsound == 1
    dead = replace(part, dead=(2,))
    seen = look_at(_SCHEMA, folder, Look(part=dead, rows=4))
    assert (seen.rows, seen.unsound) == (4, 0), "a row that is dead is nobody's"


def test_rows_are_taken_along_with_their_largest_and_their_mean_vectors(folder: Folder) -> None:
    small, large = _directions(5, 4, 0), _directions(5, 8, 1)
    multi = [_directions(n + 1, 4, n) for n in range(5)]
    part = replace(_written(folder, small, large, multi), dead=(0,))
    sample = total([look_at(_SCHEMA, folder, Look(part=part, rows=4))] * 2).sample
    assert sample.groups == ("text of retrieval.passage",) * 8
    assert len(set(sample.contents)) == 4
    assert list(sample.vectors) == ["embedding_8", "multivector"]
    assert np.array_equal(sample.vectors["embedding_8"], np.concatenate([large[1:]] * 2))
    for row, vectors in enumerate(multi[1:]):
        mean = vectors.mean(axis=0)
        assert sample.vectors["multivector"][row] == pytest.approx(
            mean / np.linalg.norm(mean), abs=2e-3
        )
    assert total([]).sample.groups == ()
    assert SAMPLE >= 1000


def test_every_row_of_the_adapter_is_searched_and_a_document_is_as_near_as_its_nearest_row(
    folder: Folder,
) -> None:
    large = _directions(200, 8, 1)
    multi = [_directions(1, 4, n) for n in range(200)]
    tasks = ["retrieval.passage"] * 199 + ["code.passage"]
    parts = [
        _written(folder, _directions(200, 4, 0), large, multi, tasks, start)
        for start in (0, 200, 0)
    ]
    queries = [
        Query(text="q", task="retrieval.query", relevant={"7": 1, "207": 1, "nowhere": 1}),
        Query(text="q", task="retrieval.query", relevant={"199": 1}),
        Query(text="q", task="retrieval.query", relevant={"nowhere": 1}),
    ]
    question = Question(vectors=large[[7, 199, 0]], queries=queries, column="embedding_8")
    hits = [search(_SCHEMA, question, folder, part) for part in parts]
    scores = large @ large[7]
    best = sorted(range(199), key=lambda n: -scores[n])[:10]
    assert {int(name) % 200 for _, name in sorted(hits[0].rankings[0])[-10:]} == set(best)
    # 7 and 207 are equal: both are found; 199 is there, and of another adapter; one has no document
    found = graded(queries, hits)
    assert found == {0: (1.0, 1.0), 1: (0.0, 0.0)}
    assert means(found.values()) == {"ndcg@10": 0.5, "recall@10": 0.5}
    assert graded(queries[2:], []) == {}
