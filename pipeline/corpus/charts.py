"""Bar charts by hand: horizontal bars for long names, columns for a few short ones."""

from collections.abc import Sequence
from itertools import count

from pipeline.corpus.sheet import ACCENT, INK, LABEL, LINE, SMALL, Sheet, Style, shorten, text_width

Item = tuple[str, int]

VALUE = Style(size=9, leading=12, colour=INK)


def axis_ticks(highest: int) -> list[int]:
    """From 0 to at least `highest` in at most five round steps."""
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    step = next(step for step in steps if step * 5 >= highest)
    return [step * number for number in range(-(-highest // step) + 1)]


def bar_chart(sheet: Sheet, caption: str, items: Sequence[Item]) -> bool:
    """Horizontal bars with names on the left; false, and nothing drawn, when there is no room."""
    pitch = 19
    height = SMALL.leading + 8 + pitch * len(items) + 26
    if not items or sheet.room < height:
        return False
    sheet.put(sheet.left, sheet.y, caption, SMALL)
    top = sheet.y + SMALL.leading + 8
    names = [shorten(name, SMALL.size, sheet.width * 0.36) for name, _ in items]
    left = sheet.left + max(text_width(name, SMALL.size) for name in names) + 8
    ticks = axis_ticks(max(1, *(value for _, value in items)))
    unit = (sheet.left + sheet.width - 22 - left) / ticks[-1]
    bottom = top + pitch * len(items) + 2
    for tick in ticks:
        x = left + tick * unit
        sheet.rule(x, top - 2, x, bottom + 3, LINE)
        sheet.put(x - text_width(str(tick), LABEL.size) / 2, bottom + 5, str(tick), LABEL)
    for number, (name, (_, value)) in enumerate(zip(names, items, strict=True)):
        y = top + pitch * number + 3
        sheet.put(left - 8 - text_width(name, SMALL.size), y, name, SMALL)
        sheet.box(left, y, left + value * unit, y + 12, ACCENT)
        _on_white(sheet, left + value * unit + 4, y + 1, str(value))
    sheet.rule(left, top - 2, left, bottom, INK)
    sheet.rule(left, bottom, left + ticks[-1] * unit, bottom, INK)
    sheet.y += height + 8
    return True


def column_chart(sheet: Sheet, caption: str, items: Sequence[Item], height: float = 96) -> bool:
    """Upright columns with names below; false, and nothing drawn, when there is no room."""
    if not items or sheet.room < height + 52:
        return False
    sheet.put(sheet.left, sheet.y, caption, SMALL)
    top = sheet.y + SMALL.leading + 14
    bottom = top + height
    ticks = axis_ticks(max(1, *(value for _, value in items)))
    left = sheet.left + text_width(str(ticks[-1]), LABEL.size) + 8
    right = sheet.left + sheet.width
    unit = height / ticks[-1]
    for tick in ticks:
        y = bottom - tick * unit
        sheet.rule(left - 3, y, right, y, LINE)
        sheet.put(left - 6 - text_width(str(tick), LABEL.size), y - 6, str(tick), LABEL)
    pitch = (right - left) / len(items)
    for number, (name, value) in enumerate(items):
        centre = left + pitch * (number + 0.5)
        sheet.box(centre - pitch * 0.3, bottom - value * unit, centre + pitch * 0.3, bottom, ACCENT)
        label = str(value)
        above = bottom - value * unit - 13
        _on_white(sheet, centre - text_width(label, VALUE.size) / 2, above, label)
        name = shorten(name, SMALL.size, pitch)
        sheet.put(centre - text_width(name, SMALL.size) / 2, bottom + 5, name, SMALL)
    sheet.rule(left, top, left, bottom, INK)
    sheet.rule(left, bottom, right, bottom, INK)
    sheet.y = bottom + 5 + SMALL.leading + 14
    return True


def _on_white(sheet: Sheet, x: float, y: float, label: str) -> None:
    """A value that no grid line crosses."""
    sheet.box(x - 1, y, x + text_width(label, VALUE.size) + 1, y + 11, "white")
    sheet.put(x, y, label, VALUE)
