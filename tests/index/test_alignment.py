"""The alignment of texts and images is what all pairs give, pair by pair."""

import itertools

import numpy as np
import pytest

from pipeline.index import alignment
from pipeline.index.alignment import Alignment, alignment_of
from pipeline.index.documents import documents_of
from pipeline.tasks import TASKS
from tests.index.corpus import Corpus, names

TASK = TASKS["retrieval.query"]


@pytest.mark.parametrize("at_once", [1, 4096])
def test_it_is_the_mean_over_all_pairs(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(alignment, "_AT_ONCE", at_once)
    corpus.add(names(7), salt=1, modality="image")
    corpus.add(names(9))
    # further rows of the same documents, others' tasks and documents of one modality do not count
    corpus.add(names(2), salt=2)
    corpus.add(names(2), salt=3, modality="image")
    corpus.add(names(7), salt=4, modality="image", task="retrieval.query")
    corpus.add(names(5, "page"), modality="image")
    corpus.add(names(5), salt=5, modality="image", task="text-matching")
    snapshot = corpus.commit()
    texts, images = (
        [np.asarray(corpus.row(name, salt)["embedding"], np.float64) for name in names(7)]
        for salt in (0, 1)
    )
    found = alignment_of(documents_of(snapshot, TASK))
    assert isinstance(found, Alignment)
    assert (found.pairs, found.random_pairs) == (7, 42)
    matching = [text @ image for text, image in zip(texts, images, strict=True)]
    assert found.matching == pytest.approx(np.mean(matching))
    random = [texts[a] @ images[b] for a, b in itertools.permutations(range(7), 2)]
    assert found.random == pytest.approx(np.mean(random))


def test_a_text_and_an_image_that_are_the_same_are_aligned_and_others_are_not(
    corpus: Corpus,
) -> None:
    for number in range(4):
        vector = np.eye(16)[number]
        corpus.add([f"d{number}"], embedding=vector)
        corpus.add([f"d{number}"], embedding=vector, modality="image")
    found = alignment_of(documents_of(corpus.commit(), TASK))
    assert found == Alignment(matching=1.0, random=0.0, pairs=4, random_pairs=12)


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        (0, "no document has both a text and an image"),
        (1, "only one document has both a text and an image"),
    ],
)
def test_where_there_is_none_it_says_why(corpus: Corpus, pairs: int, why: str) -> None:
    corpus.add(names(5))
    corpus.add([*names(pairs), "page"], modality="image")
    assert alignment_of(documents_of(corpus.commit(), TASK)) == why
