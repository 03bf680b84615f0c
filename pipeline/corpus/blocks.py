"""Reads the light markup of docstrings and topics into blocks that a page can set.

Only a reader's guess: underlined lines are headings, indented paragraphs and doctests are code,
lines that start with a bullet are items, all else is running text. Typographic marks become ASCII;
paragraphs with other characters are dropped, because the font inside Pillow has few of them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_UNDERLINE = re.compile(r"^([=*~^#-])\1{2,}$")
_DRAWN = re.compile(r"^(?:[+|].*|([=*~^#-])\1{2,}|>>>|[.]{3})$")
_ALIGNED = re.compile(r"\S {3,}\S|\S +# |^>>> ")
_BULLET = re.compile(r"^(?:[*-]|\d+[.)]) +(?=\S)")
_ROLE = re.compile(r":[a-z:+]+:`~?\.?([^`]*)`")
_TYPOGRAPHY = str.maketrans(
    {"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u2013": "-", "\u2014": "-"}
    | {"\u2026": "...", "\u2022": "*", "\t": "    "}
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """One element of a page."""

    kind: str
    """`heading`, `text`, `item` or `code`."""
    text: str
    """One line of running text; source lines for code."""


def plain(text: str) -> str:
    """Printable ASCII and line ends, without the marks of inline markup."""
    text = _ROLE.sub(r"\1", text.translate(_TYPOGRAPHY)).replace("``", "")
    return "".join(char for char in text if char == "\n" or " " <= char <= "~")


def parse(text: str) -> list[Block]:
    """The blocks of a docstring or topic, in order; drawn tables and empty prompts are dropped."""
    blocks: list[Block] = []
    for paragraph in re.split(r"\n\s*\n", text.translate(_TYPOGRAPHY).strip("\n")):
        if not paragraph.isascii():
            continue
        paragraph = plain(paragraph)
        lines = [line.rstrip() for line in paragraph.split("\n") if line.strip()]
        if len(lines) >= 2 and _UNDERLINE.match(lines[1]):
            blocks.append(Block(kind="heading", text=lines[0].strip()))
            lines = lines[2:]
        for block in _paragraph(lines):
            if block.kind == "code" and blocks and blocks[-1].kind == "code":
                block = Block(kind="code", text=f"{blocks.pop().text}\n\n{block.text}")
            blocks.append(block)
    return blocks


def _paragraph(lines: list[str]) -> Iterator[Block]:
    if not lines or all(_DRAWN.match(line.strip()) for line in lines):
        return
    bullets = [number for number, line in enumerate(lines) if _BULLET.match(line.strip())]
    if bullets and bullets[0] > 0 and not _is_code(lines):
        yield from _paragraph(lines[: bullets[0]])
        yield from _paragraph(lines[bullets[0] :])
    elif bullets and bullets[0] == 0:
        items: list[str] = []
        for line in lines:
            if _BULLET.match(line.strip()):
                items.append(_BULLET.sub("", line.strip()))
            else:
                items[-1] += f" {line.strip()}"
        yield from (Block(kind="item", text=_sentence(item)) for item in items)
    elif _is_code(lines) and not _reads_as_prose(lines):
        indent = min(len(line) - len(line.lstrip()) for line in lines)
        yield Block(kind="code", text="\n".join(line[indent:] for line in lines))
    else:
        yield Block(kind="text", text=_sentence(" ".join(lines)))


def _is_code(lines: list[str]) -> bool:
    """Indented, a doctest, or aligned by hand so that it cannot be set as running text."""
    aligned = sum(bool(_ALIGNED.search(line)) for line in lines)
    indented = sum(line.startswith("  ") for line in lines)
    return (
        lines[0].startswith(("  ", ">>> ", "$ "))
        or aligned * 2 >= len(lines)
        or (len(lines) > 2 and indented * 2 >= len(lines))
    )


def _reads_as_prose(lines: list[str]) -> bool:
    """Whether an indented paragraph is a quotation or the rest of a list item."""
    text = " ".join(line.strip() for line in lines)
    letters = sum(char.isalpha() or char == " " for char in text)
    return (
        len(text.split()) >= 6
        and (text[0].isupper() or text[0] in '"*')
        and letters >= 0.8 * len(text)
        and not any(_ALIGNED.search(line) for line in lines)
    )


def _sentence(text: str) -> str:
    text = re.sub(r"::$", ":", " ".join(text.split()))
    text = re.sub(r"`([^`]+)`", r"\1", text)
    return re.sub(r"(?<![\w*])\*{1,2}(\w[\w .-]*?)\*{1,2}(?![\w*])", r"\1", text)
