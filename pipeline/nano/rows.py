"""Rows: which questions and answers packages, manual pages and functions give."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.corpus.pages import render_pages
from pipeline.corpus.stdlib import Library
from pipeline.nano.debian import LANGUAGES, Package
from pipeline.nano.functions import Docstring, Function, Functions
from pipeline.nano.manuals import Manual
from pipeline.nano.pages import Drawn, Shown, head, line, page

_MOST_CHARACTERS = 1_200
"""Of what answers a question; the tokenizer cuts sooner."""

_HEADS = 8_000
"""Packages of which the upper part of a page is drawn."""
_PAGES = 3_000
"""Pages about modules and functions, of each layout about as many."""

_SENTENCES = re.compile(r"(?<=[.!?:;])\s+|(?<=[。！？])|\n")  # noqa: RUF001  Japanese has its own
_SHORTEST = 12
"""Characters of a sentence that says something."""

_PIECE_WORDS, _PIECE_CHARACTERS = (3, 12), 100

_WAYS = (
    ("en", "en"),
    *(way for lang in LANGUAGES for way in ((lang, "en"), ("en", lang), (lang, lang))),
)
"""In which language is asked, and in which answered."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One pair."""

    query: str
    """The question."""
    positive: str | bytes
    """What answers it, a text or an image."""
    family: str
    """With what it is held out."""
    english: str | None
    """The question in English, for the teacher; None where it is not asked."""
    shown: Shown | None = None
    """Of an image, where it shows which character of the question."""


Rows = Iterator[tuple[str, list[Row]]]
"""What they are called, and they."""


def of_packages(packages: Sequence[Package], named: str = "packages") -> Rows:
    """Short against long descriptions, in and across languages."""
    for asked, answered in _WAYS:
        rows = []
        for package in packages:
            said = {"en": package.english, **package.translated}
            if asked in said and answered in said:
                answer = said[answered].long[:_MOST_CHARACTERS]
                rows.append(_of_package(package, said[asked].short, answer))
        yield f"{named}.{asked}-{answered}", _distinct(rows)


def of_titles(packages: Sequence[Package]) -> Rows:
    """Short descriptions against their translations."""
    for language in LANGUAGES:
        rows = [
            _of_package(package, package.translated[language].short, package.english.short)
            for package in packages
            if language in package.translated
        ]
        yield f"titles.{language}-en", _distinct(r for r in rows if r.query != r.positive)


def of_pieces(packages: Sequence[Package], seed: int = 0) -> Rows:
    """A few words out of a long description against the rest of it, in and across languages.

    The inverse cloze task (Lee et al., arXiv 1906.00300): what goes together without anybody having
    asked. Across languages the whole of the other description answers.
    """
    random = np.random.default_rng(seed)
    for asked in ("en", *LANGUAGES):
        for answered in dict.fromkeys((asked, "en")):
            rows = []
            for package in packages:
                said = {"en": package.english, **package.translated}
                if asked not in said:
                    continue
                sentences = [s for s in _SENTENCES.split(said[asked].long) if len(s) >= _SHORTEST]
                if len(sentences) < 2:
                    continue
                chosen = int(random.integers(len(sentences)))
                rest = [s for number, s in enumerate(sentences) if number != chosen]
                answer = " ".join(rest) if answered == asked else said[answered].long
                rows.append(
                    Row(
                        query=_piece(sentences[chosen], random),
                        positive=answer[:_MOST_CHARACTERS],
                        family=package.family,
                        english=None,
                    )
                )
            yield f"pieces.{asked}-{answered}", _distinct(rows)


def _piece(sentence: str, random: np.random.Generator) -> str:
    """Some words of a sentence, as many as a question has."""
    words = sentence.split()
    length = int(random.integers(*_PIECE_WORDS))
    first = int(random.integers(max(1, len(words) - length + 1)))
    return " ".join(words[first : first + length])[:_PIECE_CHARACTERS]


def of_images(packages: Sequence[Package], functions: Sequence[Function], seed: int = 0) -> Rows:
    """Short descriptions and names against images of themselves, and the heads of some pages."""
    random = np.random.default_rng(seed)
    distinct = list({package.english.short: package for package in packages}.values())
    with_head = np.sort(random.permutation(len(distinct))[:_HEADS])
    titles = [(package.english.short.split(), " ", package.family) for package in distinct]
    names = [(function.name.split("."), ".", function.family) for function in functions]
    yield (
        "lines",
        [
            _of_image(line(words, joint, random), family)
            for words, joint, family in (*titles, *names)
        ],
    )
    yield "heads", [_of_image(head(distinct[n]), distinct[n].family) for n in with_head]


def of_pages(library: Library) -> Rows:
    """Titles against whole pages about modules and functions."""
    yield (
        "pages",
        [_of_image(page(p), p.module.split(".")[0]) for p in render_pages(library, _PAGES)],
    )


def of_manuals(manuals: Sequence[Manual]) -> Rows:
    """Purposes of pages against their descriptions, also across languages."""
    english = {(m.name, m.section): m for m in manuals if m.language == "en"}
    same, across = [], []
    for manual in manuals:
        original = english.get((manual.name, manual.section))
        if original is None:
            continue
        if manual.text:
            same.append(_of_manual(manual, manual, original))
        if original.text and manual.language != "en":
            across.append(_of_manual(manual, original, original))
    yield "manuals.same", same
    yield "manuals.across", across


def of_functions(functions: Functions) -> Rows:
    """What a function does against its code."""
    yield "functions", [_of_function(f, f.purpose) for f in functions.documented]
    yield "functions.private", [_of_function(f, f.purpose) for f in functions.private]
    # a name is no sentence
    yield "functions.named", [_of_function(f, None) for f in functions.named]


def of_docstrings(docstrings: Sequence[Docstring]) -> Rows:
    """The first sentence of a docstring against the rest of it."""
    yield (
        "docstrings",
        [
            Row(
                query=said.first,
                positive=said.rest[:_MOST_CHARACTERS],
                family=said.family,
                english=None,
            )
            for said in docstrings
        ],
    )


def _of_package(package: Package, query: str, positive: str | bytes) -> Row:
    return Row(query=query, positive=positive, family=package.family, english=package.english.short)


def _of_function(function: Function, english: str | None) -> Row:
    return Row(
        query=function.purpose,
        positive=function.code[:_MOST_CHARACTERS],
        family=function.family,
        english=english,
    )


def _of_image(drawn: Drawn, family: str) -> Row:
    return Row(query=drawn.text, positive=drawn.png, family=family, english=None, shown=drawn.shown)


def _of_manual(asked: Manual, answered: Manual, original: Manual) -> Row:
    return Row(
        query=asked.purpose,
        positive=f"{answered.name}\n{answered.text}"[:_MOST_CHARACTERS],
        family=original.family,
        english=original.purpose,
    )


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Each pair once, in their order."""
    found: dict[tuple[str, str | bytes], Row] = {}
    for row in rows:
        found.setdefault((row.query, row.positive), row)
    return list(found.values())
