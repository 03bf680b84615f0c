"""Collate: the items of a batch of pairs, ready for the network, and who answers whom.

Items are the queries, then what answers each of them, then all hard negatives. A candidate that is
the same as what answers a query, or that answers the same question elsewhere in the batch, is no
negative of that query: a corpus repeats itself, and to push equal things apart teaches nothing.

Legend: Q queries, P candidates, M squares (merged patches) of all images.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RowError, SpecError
from pipeline.model.processor import PreparedItem, Processor
from pipeline.tasks import PREFIXES, Task
from pipeline.training.pairs import UNTOLD, Pair
from pipeline.training.spec import Prompt

_WORD = re.compile(r"\S+\s*")
_TINY = 1e-12
"""Keeps a vector of zeros from being divided by its length."""

Reader = Callable[[str], str]
"""What is read of a text."""


def whole(text: str) -> str:
    """All of it."""
    return text


def with_gaps(share: float, generator: np.random.Generator) -> Reader:
    """A share of a text's words is passed over, others each time; one word at least is read.

    So that a pair is not known by one rare word: few pairs are soon learnt by heart.
    """

    if not share:
        return whole

    def read(text: str) -> str:
        words = _WORD.findall(text)
        is_read = generator.random(len(words)) >= share
        return "".join(word for word, kept in zip(words, is_read, strict=True) if kept) or text

    return read


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some pairs, ready for the network."""

    items: tuple[PreparedItem, ...]
    """Q queries and P candidates: their answers in the same order, then hard negatives."""
    queries: int
    """Q."""
    passed_over_QP: NDArray[np.bool_]
    """Which candidates are no negatives of a query."""
    grades_Q: NDArray[np.float64]
    """How close a query and its answer are; NaN where nobody has said so."""
    taught_QQ: NDArray[np.float32]
    """A teacher's cosines of the queries; NaN where it has said nothing."""

    shown_M: NDArray[np.int64]
    """Of each square of all images, in the order of the items: the token that it shows, the pad
    where it shows nothing, and `UNTOLD`."""

    @property
    def tokens(self) -> int:
        """Of all items."""
        return sum(len(item.token_ids) for item in self.items)


class Collator:
    """Makes batches for one checkpoint."""

    def __init__(self, processor: Processor) -> None:
        """Take what prepares items."""
        self._processor = processor

    def batch(self, pairs: Sequence[Pair], read: Reader = whole) -> Batch:
        """A batch of pairs; a pair that cannot be prepared is left out.

        Args:
            pairs: which.
            read: what is read of their texts.

        Raises:
            RowError: none can.
        """
        kept: list[Pair] = []
        queries: list[PreparedItem] = []
        answers: list[PreparedItem] = []
        fault: RowError | None = None
        for pair in pairs:
            try:
                query, answer = self._query(pair, read), self._answer(pair, read)
            except RowError as error:
                fault = error
                continue
            kept.append(pair)
            queries.append(query)
            answers.append(answer)
        if not kept and fault is not None:
            raise fault
        negatives = [(text, pair.prompts[1]) for pair in kept for text in pair.negatives]
        more = [self._text(read(text), prompt) for text, prompt in negatives]
        contents = [*(pair.answer for pair in kept), *(text for text, _ in negatives)]
        return Batch(
            items=(*queries, *answers, *more),
            queries=len(kept),
            passed_over_QP=_passed_over(kept, contents),
            grades_Q=np.array([np.nan if p.grade is None else p.grade for p in kept]),
            taught_QQ=_taught(kept),
            shown_M=np.concatenate(
                [self._shown(pair, answer) for pair, answer in zip(kept, answers, strict=True)]
            ),
        )

    def _query(self, pair: Pair, read: Reader) -> PreparedItem:
        return self._text(read(pair.query), pair.prompts[0])

    def _answer(self, pair: Pair, read: Reader) -> PreparedItem:
        if pair.image is not None:
            return self._processor.image(pair.image)
        assert pair.text is not None
        return self._text(read(pair.text), pair.prompts[1])

    def _shown(self, pair: Pair, answer: PreparedItem) -> NDArray[np.int64]:
        """Of each square of an image its token; of a text nothing."""
        squares = answer.squares(self._processor.pad)
        if pair.shown is None or answer.pixels is None:
            return np.full(squares, UNTOLD, np.int64)
        if len(pair.shown) != squares:
            raise SpecError(
                f"pairs.shown: {len(pair.shown)} squares are told of an image that has "
                f"{squares}; its sides are to be multiples of {self._processor.bounds.factor} "
                "pixels, and no more of these than max_pixels"
            )
        of_character = self._processor.tokens_by_character(pair.query, _task(pair.prompts[0]))
        # the last two are found by the numbers that stand for them, from behind
        tokens = np.array([*of_character, UNTOLD, self._processor.pad], np.int64)
        return tokens[pair.shown]

    def _text(self, text: str, prompt: Prompt) -> PreparedItem:
        return self._processor.text(text, _task(prompt))


def _task(prompt: Prompt) -> Task:
    return Task(name=prompt, adapter="", prefix=PREFIXES[prompt])


def _taught(pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """[Q, Q]: of each two queries that the same teacher knows."""
    cosines_QQ = np.full((len(pairs), len(pairs)), np.nan, np.float32)
    vectors = {row: pair.taught for row, pair in enumerate(pairs) if pair.taught is not None}
    for size in {len(vector) for vector in vectors.values()}:
        rows = [row for row, vector in vectors.items() if len(vector) == size]
        known_KD = np.stack([vectors[row] for row in rows])
        known_KD /= np.maximum(np.linalg.norm(known_KD, axis=1, keepdims=True), _TINY)
        cosines_QQ[np.ix_(rows, rows)] = known_KD @ known_KD.T
    return cosines_QQ


def _passed_over(pairs: Sequence[Pair], contents: Sequence[str | bytes]) -> NDArray[np.bool_]:
    """[Q, P]: the same as the answer, or the answer of the same question; never the own answer."""
    _, content_P = np.unique([hash(content) for content in contents], return_inverse=True)
    _, question_Q = np.unique([hash(pair.query) for pair in pairs], return_inverse=True)
    queries = len(pairs)
    same_QP: NDArray[np.bool_] = content_P[:queries, None] == content_P[None, :]
    # hard negatives answer no question
    same_QP[:, :queries] |= question_Q[:, None] == question_Q[None, :]
    np.fill_diagonal(same_QP[:, :queries], False)
    return same_QP
