"""Rows: which questions and answers packages, manual pages and functions give."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.nano.debian import LANGUAGES, Package
from pipeline.nano.functions import Function
from pipeline.nano.manuals import Manual
from pipeline.nano.pages import head, strip

_MOST_CHARACTERS = 1_200
"""Of what answers a question; the tokenizer cuts sooner."""

_HEADS = 8_000
"""Packages of which the upper part of a page is drawn."""

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
    english: str
    """The question in English, for the teacher."""


Rows = Iterator[tuple[str, list[Row]]]
"""What they are called, and they."""


def of_packages(packages: Sequence[Package]) -> Rows:
    """Short against long descriptions, in and across languages."""
    for asked, answered in _WAYS:
        rows = []
        for package in packages:
            said = {"en": package.english, **package.translated}
            if asked in said and answered in said:
                answer = said[answered].long[:_MOST_CHARACTERS]
                rows.append(_of_package(package, said[asked].short, answer))
        yield f"packages.{asked}-{answered}", _distinct(rows)


def of_titles(packages: Sequence[Package]) -> Rows:
    """Short descriptions against their translations."""
    for language in LANGUAGES:
        rows = [
            _of_package(package, package.translated[language].short, package.english.short)
            for package in packages
            if language in package.translated
        ]
        yield f"titles.{language}-en", _distinct(r for r in rows if r.query != r.positive)


def of_images(packages: Sequence[Package]) -> Rows:
    """Short descriptions against strips of all and the heads of some pages."""
    random = np.random.default_rng(0)
    distinct = list({package.english.short: package for package in packages}.values())
    with_head = np.sort(random.permutation(len(distinct))[:_HEADS])
    yield (
        "strips",
        [_of_package(p, p.english.short, strip(p.english.short, random)) for p in distinct],
    )
    some = [distinct[number] for number in with_head]
    yield "heads", [_of_package(p, p.english.short, head(p)) for p in some]


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


def of_functions(functions: Sequence[Function]) -> Rows:
    """What a function does against its code."""
    yield (
        "functions",
        [
            Row(
                query=function.purpose,
                positive=function.code[:_MOST_CHARACTERS],
                family=function.family,
                english=function.purpose,
            )
            for function in functions
        ],
    )


def _of_package(package: Package, query: str, positive: str | bytes) -> Row:
    return Row(query=query, positive=positive, family=package.family, english=package.english.short)


def _of_manual(asked: Manual, answered: Manual, original: Manual) -> Row:
    return Row(
        query=asked.purpose,
        positive=f"{answered.name}\n{answered.text}"[:_MOST_CHARACTERS],
        family=original.family,
        english=original.purpose,
    )


def _distinct(rows: "Iterator[Row] | list[Row]") -> list[Row]:
    """Each pair once, in their order."""
    found: dict[tuple[str, str | bytes], Row] = {}
    for row in rows:
        found.setdefault((row.query, row.positive), row)
    return list(found.values())
