"""What counts as found, by words and by vectors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import held_out as held_out_module
from benchmarks.held_out import Answers, Graded, HeldOut
from pipeline.model.outputs import Embeddings

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


def test_cosines_are_held_against_grades_by_their_order(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = [f"sentence number {number}" for number in range(40)]
    angles = np.linspace(0.1, 1.5, 40)
    table = {"query": sentences, "positive": ["one"] * 40, "grade": np.cos(angles) ** 3}
    pq.write_table(pa.table(table), tmp_path / "graded.parquet")
    graded = Graded(tmp_path / "graded.parquet", most=30, seed=0)
    assert len(graded.grades_P) == 30
    # of vectors that are as they come: some number, the same every time
    ((size, (value, low, high)),) = graded.by_vectors(
        tiny_checkpoint, "text-matching", (64,), 64
    ).items()
    assert size == 64 and -1 < low < value < high < 1

    class Pretended:
        def embed(self, texts: list[str], *, dim: tuple[int, ...], multi: bool) -> Embeddings:
            turns = [0.0 if t == "one" else angles[int(t.split()[-1])] for t in texts]
            vectors = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)
            return Embeddings(
                singles=dict.fromkeys(dim, vectors),
                multi=None,
                n_tokens=np.ones(len(texts), np.int32),
                truncated=np.zeros(len(texts), np.bool_),
                faults={},
            )

    monkeypatch.setattr(held_out_module, "_embedder", lambda *_: Pretended())
    found = graded.by_vectors(tiny_checkpoint, "text-matching", (2,), 64)
    # the order is the same, though a cosine is not its own cube
    assert found == {2: pytest.approx((1.0, 1.0, 1.0))}
