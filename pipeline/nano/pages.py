"""Images of titles, as a page shows them: by these nano learns to read.

A line is a strip as high as one of the squares that become tokens, with a piece of a title in it.
A head is the upper part of a page: a package's short description as its title, and the long one
below. A page is a whole one, about a module or a function. All are set as the quickstart's pages
are (`pipeline.corpus`), in the one font that is inside Pillow, which has no Japanese. With each it
is told which square shows which character of the title, so that reading need not be found out from
questions and answers alone.

A line takes about 5 ms, a head 30, a page 80.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from pipeline.corpus.pages import Page
from pipeline.corpus.sheet import (
    BODY,
    HEIGHT,
    SUBTITLE,
    TITLE,
    WIDTH,
    Sheet,
    text_width,
    wrap,
)
from pipeline.nano.debian import Package

_SQUARE = 28
"""Pixels of one token's square, in both directions."""

_COLUMNS, _ROWS, _HEAD_ROWS = WIDTH // _SQUARE, HEIGHT // _SQUARE, 8
_LEFT, _ABOVE = (2, 46), (-4, 0)
"""Where the piece of a line begins, in pixels: a title stands so in its row of squares."""

_MIDDLE = 16
"""Pixels from where a title's line is put to the middle of its letters."""

_LEAST = 6
"""Pixels of a letter by which a square shows it; by fewer it is not told."""

_COLOURS = 32

Shown = tuple[int | None, ...]
"""Of each square, row by row: the place of the character that it shows, -1 for none, None where
something else may be."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An image of a text."""

    text: str
    """What is to be read."""
    png: bytes
    """The image, encoded."""
    shown: Shown
    """Where it shows which character of the text."""


def line(words: list[str], joint: str, random: np.random.Generator) -> Drawn:
    """A piece of some words, from one of them on, as far as a line goes.

    Args:
        words: one at least.
        joint: what is between two of them.
        random: by which the piece is chosen, and where it stands.
    """
    left, above = int(random.integers(*_LEFT)), int(random.integers(*_ABOVE))
    first = int(random.integers(len(words)))
    room = WIDTH - left - 4
    text = words[first]
    for word in words[first + 1 :]:
        if text_width(longer := text + joint + word, TITLE.size) > room:
            break
        text = longer
    text = wrap(text, TITLE.size, room)[0]
    sheet = Sheet(WIDTH, _SQUARE, (left, above, 0))
    sheet.put(left, above, text, TITLE)
    shown = _shown(text, range(len(text)), left)
    return Drawn(text=text, png=_png(sheet.image()), shown=tuple(shown))


def head(package: Package) -> Drawn:
    """The upper part of a page about a package."""
    title = package.english.short
    sheet = Sheet.of_book("Debian packages", package.name, 1)
    sheet.write(title, TITLE)
    sheet.write(package.name, SUBTITLE)
    for paragraph in package.english.long.split("\n"):
        if sheet.write(paragraph, BODY):
            break
    image = sheet.image().crop((0, 0, WIDTH, _HEAD_ROWS * _SQUARE))
    return Drawn(text=title, png=_png(image), shown=_titled(title, _HEAD_ROWS))


def page(whole: Page) -> Drawn:
    """A page about a module or a function."""
    return Drawn(text=whole.title, png=_png(whole.image), shown=_titled(whole.title, _ROWS))


@cache
def _empty() -> Sheet:
    """A page of a book, to measure on: it is drawn once."""
    return Sheet.of_book("", "", 1)


def _titled(title: str, rows: int) -> Shown:
    """Of a page of a book so many rows of squares: where its title is, and nothing of the rest."""
    empty = _empty()
    shown: list[list[int | None]] = [[None] * _COLUMNS for _ in range(rows)]
    # lines are set anew: what they have in common with the title are its letters
    letters = [place for place, character in enumerate(title) if not character.isspace()]
    for number, text in enumerate(wrap(title, TITLE.size, empty.width)):
        row = int(empty.y + number * TITLE.leading + _MIDDLE) // _SQUARE
        places = [-1 if character.isspace() else letters.pop(0) for character in text]
        if row < rows:
            shown[row] = _shown(text, places, empty.left)
    return tuple(place for row in shown for place in row)


def _shown(text: str, places: Sequence[int], left: float) -> list[int | None]:
    """Of each square of a row with a line of text: the letter that is nearest to its middle."""
    edges = [left + text_width(text[:count], TITLE.size) for count in range(len(text) + 1)]
    letters = [
        (start, stop, place)
        for start, stop, place, character in zip(edges, edges[1:], places, text, strict=False)
        if not character.isspace()
    ]
    shown: list[int | None] = []
    for column in range(_COLUMNS):
        begin, end = column * _SQUARE, (column + 1) * _SQUARE
        ink = [(min(stop, end) - max(start, begin), start + stop, p) for start, stop, p in letters]
        there = [(abs(twice - begin - end), place) for width, twice, place in ink if width > 0]
        if not there:
            shown.append(-1)
        elif sum(width for width, _, _ in ink if width > 0) < _LEAST:
            shown.append(None)
        else:
            shown.append(min(there)[1])
    return shown


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # few colours, since most of it is paper: a third of the bytes
    image.quantize(_COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
