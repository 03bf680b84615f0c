"""A sheet of paper: text, tables and listings that flow down a page image.

Drawn at twice the final size and reduced, so that small type is smooth. The only font is the one
inside Pillow; bold is a thin outline. Nothing leaves the margins: every method that places a block
returns what did not fit, so that it can go on in the next column.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 532, 756
"""Pixels of a page: 19 x 27 squares of 28 pixels, the aspect ratio of A4 within half a percent."""

MARGIN = 44
SCALE = 2
INK, MUTED, ACCENT, LINE, SHADE = "#1d2129", "#6a717c", "#24527a", "#c3c9d2", "#f1f4f8"


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a run of text looks; lengths in pixels of the final page."""

    size: int
    """Height of the type."""
    leading: int
    """From one baseline to the next."""
    colour: str = INK
    """Colour of the ink."""
    bold: bool = False
    """Drawn with a thin outline."""
    after: int = 6
    """Space below the block."""


TITLE = Style(size=24, leading=29, colour=ACCENT, bold=True, after=4)
SUBTITLE = Style(size=11, leading=15, colour=MUTED, after=12)
HEADING = Style(size=14, leading=19, colour=ACCENT, bold=True, after=4)
BODY = Style(size=11, leading=15, after=7)
SMALL = Style(size=10, leading=13, after=4)
LABEL = Style(size=9, leading=12, colour=MUTED, after=4)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size * SCALE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("page images need a Pillow that was built with FreeType")
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=20_000)
def text_width(text: str, size: int) -> float:
    """Width in pixels of the final page."""
    return _font(size).getlength(text) / SCALE


def wrap(text: str, size: int, width: float) -> list[str]:
    """The words of `text` in lines no wider than `width`; a word that is wider is broken."""
    lines: list[str] = []
    current, used = "", 0.0
    space = text_width(" ", size)
    for word in text.split():
        while text_width(word, size) > width:
            lines += [current] if current else []
            cut = _cut_at(word, size, width)
            lines.append(word[:cut])
            current, used, word = "", 0.0, word[cut:]
        length = text_width(word, size)
        if current and used + space + length > width:
            lines.append(current)
            current = ""
        used = used + space + length if current else length
        current = f"{current} {word}" if current else word
    return [*lines, current] if current else lines


def _cut_at(word: str, size: int, width: float) -> int:
    """How many characters of a too wide word fit, up to a dot or underscore if it has one."""
    fits = 1
    while text_width(word[: fits + 1], size) < width:
        fits += 1
    joint = max(word.rfind(mark, 0, fits) for mark in "._/(,")
    return joint + 1 if joint >= fits // 3 else fits


def shorten(text: str, size: int, width: float) -> str:
    """The text on one line, ending in dots when it had to be cut."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}...", size) > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


class Sheet:
    """One page under construction: a frame (left, width, bottom) and a cursor `y` that moves down.

    Lengths are pixels of the final page.
    """

    def __init__(
        self,
        width: int = WIDTH,
        height: int = HEIGHT,
        margins: tuple[float, float, float] = (MARGIN, 52, 50),
    ) -> None:
        """White paper.

        Args:
            width: of the sheet.
            height: of the sheet.
            margins: at its sides, above and below.
        """
        sides, above, below = margins
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), "white")
        self._draw = ImageDraw.Draw(self._image)
        self.left, self.width, self.bottom = (
            float(sides),
            width - 2.0 * sides,
            float(height - below),
        )
        self.y = self._top = float(above)

    @classmethod
    def of_book(cls, book: str, running_head: str, folio: int) -> "Sheet":
        """A page of a book, with a running head and a page number."""
        sheet = cls()
        right = sheet.left + sheet.width
        sheet.put(sheet.left, 26, book, LABEL)
        sheet.put(right - text_width(running_head, LABEL.size), 26, running_head, LABEL)
        sheet.rule(sheet.left, 41, right, 41)
        number = str(folio)
        sheet.put((WIDTH - text_width(number, LABEL.size)) / 2, HEIGHT - 36, number, LABEL)
        return sheet

    @property
    def room(self) -> float:
        """Height left in the frame."""
        return self.bottom - self.y

    def frame(self, left: float, width: float, top: float) -> None:
        """Goes on in another column."""
        self.left, self.width, self.y, self._top = left, width, top, top

    def image(self) -> Image.Image:
        """The finished page."""
        return self._image.reduce(SCALE)

    def put(self, x: float, y: float, text: str, style: Style) -> None:
        """One line of text with its top left corner there, wherever the cursor is."""
        self._draw.text(
            (round(x * SCALE), round(y * SCALE)),
            text,
            fill=style.colour,
            font=_font(style.size),
            stroke_width=1 if style.bold else 0,
            stroke_fill=style.colour,
        )

    def rule(self, x0: float, y0: float, x1: float, y1: float, colour: str = LINE) -> None:
        """A line one pixel thick."""
        ends = tuple(round(value * SCALE) for value in (x0, y0, x1, y1))
        self._draw.line(ends, fill=colour, width=SCALE)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        """A filled rectangle."""
        self._draw.rectangle([round(value * SCALE) for value in (x0, y0, x1, y1)], fill=colour)

    def write(self, text: str, style: Style, indent: float = 0) -> str:
        """Wrapped text; returns what did not fit (a paragraph never leaves one line behind)."""
        lines = wrap(text, style.size, self.width - indent)
        fitting = min(int(self.room // style.leading), len(lines))
        if fitting < min(2, len(lines)):
            return text
        for line in lines[:fitting]:
            self.put(self.left + indent, self.y, line, style)
            self.y += style.leading
        self.y += style.after
        return " ".join(lines[fitting:])

    def heading(self, text: str) -> str:
        """A heading; returned, and not drawn, when two lines of text would not fit below it."""
        needed = HEADING.leading * len(wrap(text, HEADING.size, self.width)) + 2 * BODY.leading
        if self.room < needed + 10:
            return text
        self.y += 4 if self.y > self._top else 0
        return self.write(text, HEADING)

    def bullet(self, text: str) -> str:
        """An item of a list; returns what did not fit."""
        top = self.y
        rest = self.write(text, replace(BODY, after=4), indent=14)
        if self.y > top:
            self.box(self.left + 4, top + 6, self.left + 7, top + 9, ACCENT)
        return rest

    def listing(self, source: str, numbered: bool = False) -> str:
        """Source on a shaded ground, long lines wrapped; returns the lines that did not fit."""
        gutter = 26 if numbered else 8
        lines = source.split("\n")
        set_lines = [_set_line(line, self.width - gutter - 6) for line in lines]
        fitting, height = 0, 14
        while fitting < len(lines) and height + len(set_lines[fitting]) * SMALL.leading < self.room:
            height += len(set_lines[fitting]) * SMALL.leading
            fitting += 1
        if fitting < min(2, len(lines)):
            return source
        self.box(self.left, self.y, self.left + self.width, self.y + height - 4, SHADE)
        y = self.y + 5
        for number, parts in enumerate(set_lines[:fitting], start=1):
            if numbered:
                digits = str(number)
                self.put(self.left + 18 - text_width(digits, LABEL.size), y + 1, digits, LABEL)
            for x, text in parts:
                self.put(self.left + gutter + x, y, text, SMALL)
                y += SMALL.leading
        self.y += height + 5
        return "\n".join(lines[fitting:])

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], shares: Sequence[float]
    ) -> int:
        """A ruled table with columns of these shares of the width; returns how many rows fitted.

        Cells wrap to two lines at most.
        """
        widths = [share * self.width for share in shares]
        cells = [[_cell(*pair) for pair in zip(row, widths, strict=True)] for row in rows]
        if not rows or self.room < 22 + _row_height(cells[0]):
            return 0
        top, right = self.y, self.left + self.width
        self.box(self.left, top, right, top + 19, SHADE)
        bold = replace(SMALL, bold=True, colour=ACCENT)
        self._table_row([[text] for text in head], widths, bold)
        placed = 0
        for row in cells:
            if self.room < _row_height(row) + 2:
                break
            self._table_row(row, widths, SMALL)
            placed += 1
        x = self.left
        for width in [0.0, *widths]:
            x += width
            self.rule(x, top, x, self.y)
        self.rule(self.left, top, right, top)
        self.y += 12
        return placed

    def _table_row(self, cells: Sequence[list[str]], widths: Sequence[float], style: Style) -> None:
        x = self.left
        for lines, width in zip(cells, widths, strict=True):
            for number, line in enumerate(lines):
                self.put(x + 6, self.y + 3 + number * SMALL.leading, line, style)
            x += width
        self.y += _row_height(cells)
        self.rule(self.left, self.y, self.left + self.width, self.y)


def _set_line(line: str, width: float) -> list[tuple[float, str]]:
    """One source line as indents and texts; what is too long goes on further to the right."""
    body = line.lstrip(" ")
    indent = min(5.0 * (len(line) - len(body)), width / 2)
    if text_width(body, SMALL.size) <= width - indent:
        return [(indent, body)]
    first, *more = wrap(body, SMALL.size, width - indent - 15)
    return [(indent, first), *((indent + 15, text) for text in more)]


def _cell(text: str, width: float) -> list[str]:
    lines = wrap(text, SMALL.size, width - 12)
    if len(lines) > 2:
        lines = [lines[0], shorten(" ".join(lines[1:]), SMALL.size, width - 12)]
    return lines


def _row_height(cells: Sequence[list[str]]) -> int:
    return max(len(lines) for lines in cells) * SMALL.leading + 6
