"""Images of short descriptions, as a page shows them: by these nano learns to read.

A strip is what a page has at one place: a title, or a line or two of text. A head is the upper part
of a page: a package's short description as its title, and the long one below. They are set as the
quickstart's pages are (`pipeline.corpus.sheet`), in the one font that is inside Pillow, which has
no Japanese. A strip takes about 2 ms, a head 15.
"""

import io

import numpy as np
from PIL import Image

from pipeline.corpus.sheet import (
    BODY,
    HEADING,
    MARGIN,
    SMALL,
    SUBTITLE,
    TITLE,
    WIDTH,
    Sheet,
    Style,
    wrap,
)
from pipeline.nano.debian import Package

_SQUARE = 28
"""Pixels of one token's square, in both directions."""

_STYLES = (TITLE, TITLE, HEADING, BODY, SMALL)
_STRIP_SQUARES = (9, 12, 15, 19)
"""Widths of strips, in squares."""

_HEAD_HEIGHT = 8 * _SQUARE
_COLOURS = 32


def strip(text: str, random: np.random.Generator) -> bytes:
    """A text in a style and a width by chance, as PNG."""
    style: Style = _STYLES[random.integers(len(_STYLES))]
    width = int(random.choice(_STRIP_SQUARES)) * _SQUARE
    left, above = int(random.integers(4, 32)), int(random.integers(2, 16))
    lines = len(wrap(text, style.size, width - 2 * left))
    needed = above + lines * style.leading + 6
    sheet = Sheet(width, -(-needed // _SQUARE) * _SQUARE, (left, above, 0))
    sheet.write(text, style)
    return _png(sheet.image())


def head(package: Package) -> bytes:
    """The upper part of a page about a package, as PNG."""
    sheet = Sheet(WIDTH, _HEAD_HEIGHT, (MARGIN, 30, 0))
    sheet.write(package.english.short, TITLE)
    sheet.write(package.name, SUBTITLE)
    for paragraph in package.english.long.split("\n"):
        if sheet.write(paragraph, BODY):
            break
    return _png(sheet.image())


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # few colours, since most of it is paper: a third of the bytes
    image.quantize(_COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
