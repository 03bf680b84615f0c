"""Held-out pairs as questions and answers, and how well each way of searching finds those; and
graded pairs, and how well cosines follow the grades.

Of equal answers, and of several answers to the same question, each is relevant. BM25 is bm25s's
(Lucene's variant, k1 1.2, b 0.75) over the words in lower case, without stemming or stop words;
Japanese, which has no spaces, is cut where its script changes to another.

Legend: Q queries, N answers, V vectors of all answers, D size of a vector, P graded pairs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import bm25s
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import bootstrap, spearmanr

from pipeline.index.scoring import maxsim, nearest
from pipeline.model.embedder import Embedder
from pipeline.model.outputs import Embeddings
from pipeline.ranking import ndcg

MOST = 10
"""Of a ranking that counts: nDCG@10."""

_WORDS = re.compile(r"[぀-ヿ]+|[㐀-鿿]+|[^\W぀-ヿ㐀-鿿]+")
_ANSWER = "positive"
_BUDGET = 8192

_RESAMPLES = 1_000
"""Of graded pairs; each is sorted anew."""

Values = NDArray[np.float64]
"""nDCG@10 of each query."""

Correlation = tuple[float, float, float]
"""Spearman's, and the lower and the upper end of its 95 % interval."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What can be found."""

    name: str
    """What they are."""
    file: str
    """Of them all."""
    adapter: str
    """Of their task."""
    prompts: tuple[str, str]
    """Of the questions, and of them."""
    asked: dict[str, str]
    """Name -> file of the questions that are asked of them."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Questions, and who answers them."""

    queries: tuple[str, ...]
    """A sample, in the order of the file."""
    grades: tuple[dict[str, float], ...]
    """Of each query: the numbers of its answers, as text."""


class HeldOut:
    """Answers that were read, with all that is asked of them."""

    def __init__(self, folder: Path, answers: Answers, most: int, seed: int) -> None:
        """Read them.

        Args:
            folder: of the held-out pairs.
            answers: which.
            most: queries of each name.
            seed: of the sample.
        """
        self.answers = answers
        contents = pq.read_table(folder / answers.file, columns=[_ANSWER])[0].to_pylist()
        self.contents: list[str] | list[bytes] = list(dict.fromkeys(contents))
        self._numbers = {content: str(number) for number, content in enumerate(self.contents)}
        self.asked = {
            name: self._ask(folder / file, most, seed) for name, file in answers.asked.items()
        }

    @property
    def is_of_images(self) -> bool:
        """Whether the answers are images, which have no words."""
        return isinstance(self.contents[0], bytes)

    def _ask(self, file: Path, most: int, seed: int) -> Asked:
        grades: dict[str, dict[str, float]] = {}
        table = pq.read_table(file, columns=["query", _ANSWER])
        for query, content in zip(*(column.to_pylist() for column in table), strict=True):
            grades.setdefault(query, {})[self._numbers[content]] = 1.0
        chosen = np.sort(np.random.default_rng(seed).permutation(len(grades))[:most])
        every = list(grades)
        queries = [every[number] for number in chosen]
        return Asked(queries=tuple(queries), grades=tuple(grades[query] for query in queries))

    def apart(self, name: str) -> NDArray[np.bool_]:
        """The queries of that name which have no word in common with what answers them."""
        asked = self.asked[name]
        return np.array(
            [
                not any(set(_words(query)) & self._said[int(number)] for number in grades)
                for query, grades in zip(asked.queries, asked.grades, strict=True)
            ]
        )

    def by_words(self, name: str) -> Values:
        """BM25."""
        known = self._index.vocab_dict
        found = []
        for query in self.asked[name].queries:
            words = [word for word in _words(query) if word in known]
            scores_N = self._index.get_scores(words) if words else np.zeros(len(self.contents))
            found.append(np.where(scores_N > 0, scores_N, -np.inf))
        return self._values(name, found)

    def by_vectors(
        self, checkpoint: Path, adapter: str, dims: Sequence[int], length: int
    ) -> dict[str, dict[str, Values]]:
        """Single vectors of each size, and multi-vectors: name -> way -> values.

        Args:
            checkpoint: of the model.
            adapter: with which both sides are embedded.
            dims: sizes of single vectors.
            length: tokens a text is cut to.
        """
        asking, answering = (
            _embedder(checkpoint, adapter, prompt, length) for prompt in self.answers.prompts
        )
        answers = answering.embed(self.contents, dim=dims, multi=True)
        vectors_VD, lengths_N = _side_by_side(answers)
        found: dict[str, dict[str, Values]] = {}
        for name, asked in self.asked.items():
            queries = asking.embed(asked.queries, dim=dims, multi=True)
            found[name] = {
                f"single {dim}": self._values(name, queries.singles[dim] @ answers.singles[dim].T)
                for dim in dims
            }
            assert queries.multi is not None
            late = [maxsim(query_TD, vectors_VD, lengths_N) for query_TD in queries.multi]
            found[name]["multi"] = self._values(name, late)
        return found

    def _values(self, name: str, scores_QN: Sequence[NDArray[np.floating]]) -> Values:
        return np.array(
            [
                ndcg([str(number) for number in nearest(scores_N, MOST)], grades, MOST)
                for scores_N, grades in zip(scores_QN, self.asked[name].grades, strict=True)
            ]
        )

    @cached_property
    def _index(self) -> bm25s.BM25:
        index = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
        index.index([_words(str(content)) for content in self.contents], show_progress=False)
        return index

    @cached_property
    def _said(self) -> list[set[str]]:
        return [set(_words(str(content))) for content in self.contents]


class Graded:
    """Pairs of sentences with how close they are said to be."""

    def __init__(self, file: Path, most: int, seed: int) -> None:
        """Read a sample of as many as `most`."""
        table = pq.read_table(file, columns=["query", _ANSWER, "grade"])
        chosen = np.sort(np.random.default_rng(seed).permutation(len(table))[:most])
        ones, others, grades = table.take(chosen)
        self._ones, self._others = ones.to_pylist(), others.to_pylist()
        self.grades_P: NDArray[np.float64] = grades.to_numpy()

    def by_vectors(
        self, checkpoint: Path, adapter: str, dims: Sequence[int], length: int
    ) -> dict[int, Correlation]:
        """How well the cosines of single vectors of each size follow the grades.

        Args:
            checkpoint: of the model.
            adapter: with which both sides are embedded.
            dims: sizes of single vectors.
            length: tokens a text is cut to.
        """
        embedder = _embedder(checkpoint, adapter, "query", length)
        ones, others = (
            embedder.embed(side, dim=dims, multi=False) for side in (self._ones, self._others)
        )
        return {
            dim: self._correlation(
                np.einsum("pd,pd->p", ones.singles[dim], others.singles[dim]).astype(np.float64)
            )
            for dim in dims
        }

    def _correlation(self, cosines_P: NDArray[np.float64]) -> Correlation:
        ends = bootstrap(
            (cosines_P, self.grades_P),
            lambda some, grades: spearmanr(some, grades).statistic,
            paired=True,
            vectorized=False,
            n_resamples=_RESAMPLES,
            method="percentile",
            rng=0,
        ).confidence_interval
        return float(spearmanr(cosines_P, self.grades_P).statistic), ends.low, ends.high


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _embedder(checkpoint: Path, adapter: str, prompt: str, length: int) -> Embedder:
    # a symmetric adapter has one task, with one prompt
    task = adapter if adapter == "text-matching" else f"{adapter}.{prompt}"
    return Embedder.load(
        checkpoint, task=task, device="cpu", max_length=length, token_budget=_BUDGET
    )


def _side_by_side(found: Embeddings) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    assert found.multi is not None
    vectors_VD = np.concatenate(found.multi).astype(np.float32, copy=False)
    return vectors_VD, np.array([len(vectors) for vectors in found.multi], np.int64)
