"""Page images of the standard library's own documentation, in four layouts.

`reference` is text and a table, `report` is charts and a table, `essay` is two columns of text, and
`listing` is a function's source with its description. A page takes about 60 ms on one core.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, zip_longest
from typing import TypeVar

from PIL import Image

from pipeline.corpus.blocks import Block, parse, plain
from pipeline.corpus.charts import bar_chart, column_chart
from pipeline.corpus.passages import stable_hash
from pipeline.corpus.sheet import BODY, SUBTITLE, TITLE, Sheet
from pipeline.corpus.stdlib import TOPICS_MODULE, Definition, Library, Module, summary

FEW_ROWS = 6
"""A table with fewer rows is not worth a page of its own."""

_BOOK = "The Python Standard Library"
LENGTHS = (("1-5", 5), ("6-10", 10), ("11-20", 20), ("21-40", 40), ("41-80", 80), ("81+", 10**9))


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page image."""

    layout: str
    """`reference`, `report`, `essay` or `listing`."""
    name: str
    """Unique within its layout, and a file name."""
    title: str
    """The title on the page."""
    module: str
    """Where its content comes from."""
    image: Image.Image
    """RGB, `sheet.WIDTH` by `sheet.HEIGHT`."""


Draft = Callable[[int], Page]
"""Draws a page, given its number."""

Named = TypeVar("Named", Module, Definition)


def render_pages(library: Library, count: int) -> Iterator[Page]:
    """`count` pages, the layouts taking turns; fewer when the library has not so much to show."""
    layouts = (_references(library), _reports(library), _essays(library), _listings(library))
    turns = chain.from_iterable(zip_longest(*layouts))
    drafts = (draft for draft in turns if draft is not None)
    for folio, draft in enumerate(islice(drafts, count), start=1):
        yield draft(folio)


def _references(library: Library) -> Iterator[Draft]:
    for module in _shuffled(library.modules):
        blocks = parse(module.doc)
        text = sum(len(block.text) for block in blocks if block.kind == "text")
        if text >= 300 and len(_described(module)) >= FEW_ROWS:
            yield partial(_reference, module, blocks)


def _reference(module: Module, blocks: Sequence[Block], folio: int) -> Page:
    sheet = Sheet.of_book(_BOOK, module.name, folio)
    sheet.write(module.name, TITLE)
    sheet.write("Module reference", SUBTITLE)
    rows = _described(module)
    reserved = 60 + 27 * min(len(rows), 9)
    sheet.bottom -= reserved
    _flow(sheet, blocks)
    sheet.bottom += reserved
    if not sheet.heading("Functions and classes"):
        sheet.table(("Name", "Description"), rows, (0.4, 0.6))
    return _page("reference", module.name, module.name, module.name, sheet)


def _reports(library: Library) -> Iterator[Draft]:
    for module in _shuffled(library.modules):
        functions = [item for item in module.definitions if not item.is_class]
        if len(functions) >= 12 and max(item.lines for item in functions) >= 20:
            yield partial(_report, module, functions)


def _report(module: Module, functions: Sequence[Definition], folio: int) -> Page:
    sheet = Sheet.of_book(_BOOK, module.name, folio)
    title = f"{module.name} in numbers"
    sheet.write(title, TITLE)
    sheet.write("Size and shape of one module", SUBTITLE)
    classes = _longest_first(item for item in module.definitions if item.is_class)
    ranked = _longest_first(functions)
    documented = sum(bool(item.doc) for item in functions)
    sheet.write(
        f"The source of {module.name} has {module.lines:,} lines. It defines {len(functions)} "
        f"public functions and methods; {documented} of them carry a docstring. The longest, "
        f"{ranked[0].qualname}, has {ranked[0].lines} lines; the mean is "
        f"{sum(item.lines for item in functions) / len(functions):.1f}.",
        BODY,
    )
    sheet.heading("Longest functions")
    longest = [(item.qualname, item.lines) for item in ranked[:8]]
    bar_chart(sheet, "Lines of source, docstring and comments included", longest)
    sheet.heading("Functions by length")
    column_chart(sheet, "Number of functions by lines of source", _histogram(functions))
    rows = [(item.qualname, str(_methods(item, functions)), str(item.lines)) for item in classes]
    if rows and not sheet.heading("Largest classes"):
        sheet.table(("Class", "Methods", "Lines"), rows, (0.6, 0.2, 0.2))
    return _page("report", module.name, title, module.name, sheet)


def _longest_first(items: Iterable[Definition]) -> list[Definition]:
    return sorted(items, key=lambda item: (-item.lines, item.qualname))


def _methods(owner: Definition, functions: Iterable[Definition]) -> int:
    return sum(item.qualname.startswith(f"{owner.qualname}.") for item in functions)


def _histogram(functions: Sequence[Definition]) -> list[tuple[str, int]]:
    counts = dict.fromkeys((label for label, _ in LENGTHS), 0)
    for item in functions:
        counts[next(label for label, limit in LENGTHS if item.lines <= limit)] += 1
    return list(counts.items())


def _essays(library: Library) -> Iterator[Draft]:
    """Topics of the language reference, or long module docstrings where there are none."""
    texts = [(label, TOPICS_MODULE, text) for label, text in library.topics]
    texts = texts or [(module.name, module.name, module.doc) for module in library.modules]
    for label, module, text in sorted(texts, key=lambda entry: stable_hash(entry[0])):
        blocks = parse(text)
        if sum(len(block.text) for block in blocks if block.kind != "code") >= 2_500:
            yield partial(_essay, label, module, blocks)


def _essay(label: str, module: str, blocks: list[Block], folio: int) -> Page:
    title = label
    if blocks[0].kind == "heading":
        title, blocks = blocks[0].text, blocks[1:]
    sheet = Sheet.of_book(_BOOK, label, folio)
    sheet.write(title, TITLE)
    is_topic = module == TOPICS_MODULE
    sheet.write("The Python language reference" if is_topic else "Module notes", SUBTITLE)
    left, width, top, gap = sheet.left, sheet.width, sheet.y, 22
    column = (width - gap) / 2
    sheet.frame(left, column, top)
    rest = _flow(sheet, blocks)
    sheet.frame(left + column + gap, column, top)
    _flow(sheet, rest)
    return _page("essay", label, title, module, sheet)


def _listings(library: Library) -> Iterator[Draft]:
    for item in _shuffled([item for module in library.modules for item in module.definitions]):
        lines = plain(item.code).split("\n")
        if 20 <= len(lines) <= 36 and max(map(len, lines)) <= 80 and len(item.doc) >= 300:
            yield partial(_listing, item)


def _listing(item: Definition, folio: int) -> Page:
    sheet = Sheet.of_book(_BOOK, item.module, folio)
    sheet.write(item.qualname, TITLE)
    sheet.write(f"Annotated source, from the module {item.module}", SUBTITLE)
    first, *rest = parse(item.doc)
    _flow(sheet, [first])
    sheet.heading("Source")
    sheet.listing(plain(item.code), numbered=True)
    if rest and not sheet.heading("Notes"):
        _flow(sheet, rest)
    return _page("listing", item.name, item.qualname, item.module, sheet)


def _flow(sheet: Sheet, blocks: Sequence[Block]) -> list[Block]:
    """Sets blocks until the frame is full; returns what was left, the first perhaps cut."""
    for number, block in enumerate(blocks):
        match block.kind:
            case "heading":
                rest = sheet.heading(block.text)
            case "item":
                rest = sheet.bullet(block.text)
            case "code":
                rest = sheet.listing(block.text)
            case _:
                rest = sheet.write(block.text, BODY)
        if rest:
            kind = "text" if block.kind == "item" and rest != block.text else block.kind
            return [Block(kind=kind, text=rest), *blocks[number + 1 :]]
    return []


def _described(module: Module) -> list[tuple[str, str]]:
    """Names and first sentences, for a table."""
    rows = [(item.qualname, plain(summary(item.doc))) for item in module.definitions]
    return [(name, sentence) for name, sentence in rows if len(sentence) >= 12]


def _shuffled(items: Iterable[Named]) -> list[Named]:
    return sorted(items, key=lambda item: stable_hash(item.name))


def _page(layout: str, name: str, title: str, module: str, sheet: Sheet) -> Page:
    return Page(layout=layout, name=name, title=title, module=module, image=sheet.image())
