"""What is read of the texts of a batch, and who is nobody's negative."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import SpecError
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.processor import Processor
from pipeline.tasks import TASKS
from pipeline.training.collate import Collator, with_gaps
from pipeline.training.pairs import NOTHING, UNTOLD, Pair

texts = st.text(st.sampled_from("ab \n字"), min_size=1).filter(str.strip)


def _read(text: str, share: float, seed: int) -> str:
    return with_gaps(share, np.random.default_rng(seed))(text)


@given(texts, st.floats(0, 0.9), st.integers(0, 100))
def test_what_is_read_are_words_of_the_text_in_their_order(
    text: str, share: float, seed: int
) -> None:
    read = _read(text, share, seed).split()
    assert read
    left = iter(text.split())
    assert all(word in left for word in read)


@given(texts, st.integers(0, 100))
def test_without_gaps_all_words_are_read(text: str, seed: int) -> None:
    assert _read(text, 0.0, seed) == text


def test_as_many_words_are_passed_over_as_was_said_and_others_each_time() -> None:
    text = " ".join(map(str, range(2000)))
    read = with_gaps(0.25, np.random.default_rng(0))
    first, second = read(text).split(), read(text).split()
    assert len(first) / 2000 == pytest.approx(0.75, abs=0.03)
    assert first != second


def _pair(query: str, text: str) -> Pair:
    return Pair(
        query=query,
        text=text,
        image=None,
        shown=None,
        negatives=(),
        grade=None,
        taught=None,
        prompts=("query", "passage"),
    )


def test_equal_answers_are_no_negatives_although_other_words_of_them_are_read(
    checkpoint: Checkpoint,
) -> None:
    answer = " ".join("abcdefghijklmnopqrst")
    pairs = [_pair("one", answer), _pair("two", answer), _pair("three", "another")]
    gaps = with_gaps(0.5, np.random.default_rng(0))
    batch = Collator(Processor(checkpoint)).batch(pairs, gaps)
    assert batch.items[3].token_ids.tolist() != batch.items[4].token_ids.tolist()
    same = [[False, True, False], [True, False, False], [False, False, False]]
    assert batch.passed_over_QP.tolist() == same


def _page(query: str, squares: int, shown: list[int]) -> Pair:
    stream = io.BytesIO()
    Image.new("RGB", (28 * squares, 56)).save(stream, "PNG")
    page = replace(_pair(query, ""), text=None, image=stream.getvalue())
    return replace(page, shown=np.array(shown, np.int32))


def test_a_square_shows_the_token_of_its_character_as_the_query_has_it(
    checkpoint: Checkpoint,
) -> None:
    processor = Processor(checkpoint)
    # no letter twice, and none of the prompt's
    pad, query = checkpoint.config["image_token_id"], "Zwölf Band"
    shown = [NOTHING, 0, 3, UNTOLD, 6, len(query) - 1]
    pairs = [_pair("one", "an answer"), _page(query, 3, shown)]
    # the page is read as it is, whatever words of the query are passed over
    batch = Collator(processor).batch(pairs, with_gaps(0.9, np.random.default_rng(0)))
    asked = processor.text(query, TASKS["retrieval.query"]).token_ids
    encoded = [processor.tokens_by_character(query, TASKS["retrieval.query"])[n] for n in shown]
    assert batch.shown_M.tolist() == [pad, *encoded[1:3], UNTOLD, *encoded[4:]]
    places = [asked.tolist().index(token) for token in encoded[1:3] + encoded[4:]]
    assert places == sorted(places)
    assert batch.shown_M[-1] == asked[-1]


def test_as_many_squares_are_told_as_the_image_has(checkpoint: Checkpoint) -> None:
    with pytest.raises(SpecError, match=r"pairs\.shown: 5 squares are told of an image that has 6"):
        Collator(Processor(checkpoint)).batch([_page("word", 3, [0, 1, 2, 3, NOTHING])])
