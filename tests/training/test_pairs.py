"""What is read as a pair, what is set aside, and who answers whom."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError, SpecError
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.processor import Processor
from pipeline.training.collate import Collator
from pipeline.training.pairs import NOTHING, UNTOLD, read_pairs
from pipeline.training.spec import PairsSpec


def _spec(path: Path, **settings: object) -> PairsSpec:
    return PairsSpec.model_validate({"uri": str(path), **settings})


def test_pairs_that_cannot_be_used_are_set_aside_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    columns = {
        "query": ["a", " ", None, "d", "e", "f"],
        "positive": ["A", "B", "C", None, "", "F"],
        "page": [None, None, None, b"png", None, b"png"],
    }
    pq.write_table(pa.table(columns), path)
    pairs = read_pairs(_spec(path, image="page"))
    assert [pairs[row].query for row in range(len(pairs))] == ["a", "d"]
    assert pairs[1].answer == b"png"
    assert [(one.row, one.reason) for one in pairs.set_aside] == [
        (1, "the query is empty or null"),
        (2, "the query is empty or null"),
        (4, "what answers it is empty or null"),
        (5, "it is answered by a text and by an image: make two pairs of it"),
    ]


def test_squares_that_are_told_are_read_with_their_image(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    columns = {"query": ["word", "word", "word"], "page": [b"png"] * 3}
    shown = [[0, None, -1, 3], [4], None]
    pq.write_table(pa.table({**columns, "squares": shown}), path)
    pairs = read_pairs(_spec(path, positive=None, image="page", shown="squares"))
    told = pairs[0].shown
    assert told is not None
    assert told.tolist() == [0, UNTOLD, NOTHING, 3]
    assert pairs[1].shown is None
    assert [(one.row, one.reason) for one in pairs.set_aside] == [
        (1, "a square shows a character that the query does not have")
    ]


def test_a_mistake_in_the_columns_names_the_key_and_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"question": ["a"], "positive": [["A"]]}), path)
    with pytest.raises(SpecError, match=r"pairs\.query: 'query' is no column of .*it has question"):
        read_pairs(_spec(path))
    with pytest.raises(SpecError, match=r"the column 'positive' of .* is list<.*expected string"):
        read_pairs(_spec(path, query="question"))
    with pytest.raises(SourceError, match=r"pairs\.uri: nothing is at"):
        read_pairs(_spec(tmp_path / "away.parquet"))


def test_families_are_held_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    families = [f"family {number % 50}" for number in range(400)]
    texts = [f"text {number}" for number in range(400)]
    pq.write_table(pa.table({"query": texts, "positive": texts, "of": families}), path)
    pairs = read_pairs(_spec(path, family="of"))
    held, others = pairs.held_out(0.2), pairs.trained_on(0.2)
    assert sorted([*held, *others]) == list(range(400))
    apart = [{families[row] for row in rows} for rows in (held, others)]
    assert apart[0].isdisjoint(apart[1])
    assert 3 <= len(apart[0]) <= 18


def test_whoever_answers_as_well_is_no_negative(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "pairs.parquet"
    columns = {
        "query": ["a", "b", "a", "d"],
        "positive": ["one", "two", "three", "two"],
        "negatives": [["one", "other"], [], None, []],
        "grade": [None, 0.5, None, None],
    }
    pq.write_table(pa.table(columns), path)
    pairs = read_pairs(_spec(path, negatives="negatives", grade="grade"))
    batch = Collator(Processor(checkpoint)).batch([pairs[row] for row in range(4)])
    # answers of a, b, a, d, then the hard negatives of the first: its own answer, and another
    assert batch.passed_over_QP.astype(int).tolist() == [
        [0, 0, 1, 0, 1, 0],
        [0, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]
    assert np.isnan(batch.grades_Q[[0, 2, 3]]).all()
    assert batch.grades_Q[1] == 0.5
    assert len(batch.items) == 4 + 4 + 2


def test_a_teacher_says_how_close_the_queries_are_that_it_knows(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    path = tmp_path / "pairs.parquet"
    columns = {
        "query": ["a", "b", "c", "d"],
        "positive": ["A", "B", "C", "D"],
        "said": [[2.0, 0.0], None, [1.0, 1.0], [0.0, 3.0]],
    }
    pq.write_table(pa.table(columns), path)
    pairs = read_pairs(_spec(path, teacher="said"))
    batch = Collator(Processor(checkpoint)).batch([pairs[row] for row in range(4)])
    known, half = [0, 2, 3], 2**-0.5
    expected = [[1, half, 0], [half, 1, half], [0, half, 1]]
    assert np.allclose(batch.taught_QQ[np.ix_(known, known)], expected)
    assert np.isnan(batch.taught_QQ[1]).all()
    assert np.isnan(batch.taught_QQ[:, 1]).all()
