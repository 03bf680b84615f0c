"""What counts as found, by words and by vectors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.held_out import Answers, HeldOut

_ROWS = {
    "query": ["chess game", "chess game", "zip files", "作る 画像", "nothing alike"],
    "positive": [
        "play chess on a board",
        "a game of chess, in 3D",
        "compress files to zip archives",
        "画像を作る道具",
        "quite another thing",
    ],
}


@pytest.fixture
def held_out(tmp_path: Path) -> HeldOut:
    pq.write_table(pa.table(_ROWS), tmp_path / "pairs.parquet")
    answers = Answers(
        name="pairs",
        file="pairs.parquet",
        adapter="retrieval",
        prompts=("query", "passage"),
        asked={"all": "pairs.parquet"},
    )
    return HeldOut(tmp_path, answers, most=10, seed=0)


def test_a_query_comes_once_with_all_that_answers_it(held_out: HeldOut) -> None:
    asked = held_out.asked["all"]
    assert asked.queries == ("chess game", "zip files", "作る 画像", "nothing alike")
    assert asked.grades[0] == {"0": 1.0, "1": 1.0}


def test_bm25_finds_by_words_and_nothing_without_any(held_out: HeldOut) -> None:
    values = held_out.by_words("all")
    assert values.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert held_out.apart("all").tolist() == [False, False, False, True]


def test_vectors_are_of_every_size_and_of_tokens(held_out: HeldOut, tiny_checkpoint: Path) -> None:
    found = held_out.by_vectors(tiny_checkpoint, "retrieval", (16, 64), 64)["all"]
    assert set(found) == {"single 16", "single 64", "multi"}
    for values in found.values():
        assert len(values) == 4
        # five answers, of which all are among the first ten
        assert np.all(values > 0.3)
