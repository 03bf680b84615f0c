"""Turns definitions and topics into rows of text, and picks which rows the corpus keeps.

Picking is by a hash of the row's id: no seed, no randomness, and every module has its share. A
second hash mixes what was picked, so that each row group holds rows of all three adapters.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

from pipeline.corpus.stdlib import TOPICS_MODULE, Definition, Library, summary

PASSAGE_CHARS = 1_000
"""No passage is longer."""

PROSE_CHARS = 60
"""Shorter docstrings are no passage (their first sentence may still be a summary row)."""

CODE_LINES = range(3, 61)
"""Functions of other lengths are left out."""

QUOTAS: Mapping[str, int] = {
    "retrieval.passage": 2_200,
    "code.passage": 1_500,
    "text-matching": 900,
    "retrieval.query": 300,
    "code.query": 300,
}
"""Rows per task; an installation that is short of one task gets more passages instead."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One row of text."""

    id: str
    """Dotted name and role, for example `json.decoder.JSONDecoder.raw_decode#doc`."""
    text: str
    """What is embedded."""
    task: str
    """A public task name."""
    title: str
    """Name inside the module, or the topic's label."""
    module: str
    """Where it comes from."""
    kind: str
    """`prose` or `code`."""


TEST_QUERIES = 200
"""Questions that are asked of the corpus and are no rows of it."""


@dataclass(frozen=True, kw_only=True)
class TestQuery:
    """A question, and which rows answer it."""

    # pytest takes classes of such a name for its own
    __test__ = False

    id: str
    """Of no row."""
    text: str
    """What is asked."""
    grades: Mapping[str, int]
    """By the id of a row: 2 for the beginning of the docstring, 1 for what follows it."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the corpus keeps."""

    documents: tuple[Passage, ...]
    """For the Parquet shards, tasks mixed."""
    samples: tuple[Passage, ...]
    """Further passages, for the tar shard."""
    queries: tuple[TestQuery, ...]
    """Asked of the documents."""


def select(library: Library, samples: int) -> Selection:
    """Rows for the Parquet shards by quota, and `samples` passages that are not among them."""
    passages = _mixed(_distinct([*_prose(library), *_code(library)]))
    kept = list(_by_quota(passages))
    kept_ids = {passage.id for passage in kept}
    kept += _by_quota(_mixed(_distinct(_summaries(library))))
    asked = _mixed(_distinct(_queries(library, kept_ids)))
    kept += _by_quota(asked)
    rest = iter([passage for passage in passages if passage.id not in kept_ids])
    kept += islice(rest, sum(QUOTAS.values()) - len(kept))
    return Selection(
        documents=tuple(_mixed(kept, salt="order")),
        samples=tuple(islice(rest, samples)),
        queries=tuple(islice(_tests(asked, kept), TEST_QUERIES)),
    )


def _tests(asked: Iterable[Passage], kept: Iterable[Passage]) -> Iterator[TestQuery]:
    """The questions about prose that no row asks, with what of it the corpus has."""
    rows = {passage.id for passage in kept}
    pieces: dict[str, list[str]] = {}
    for name in sorted(rows):
        pieces.setdefault(name.partition("#doc")[0], []).append(name)
    for query in asked:
        if query.task == "retrieval.query" and query.id not in rows:
            first = query.id.replace("#query", "#doc")
            grades = {
                name: 2 if name == first else 1
                for name in pieces[query.id.removesuffix("#query")]
                if name.startswith(first)
            }
            yield TestQuery(id=query.id, text=query.text, grades=grades)


def split(text: str, limit: int = PASSAGE_CHARS) -> list[str]:
    """The text in pieces of at most `limit` characters, cut at paragraphs where possible."""
    pieces: list[str] = []
    current = ""
    for paragraph in text.split("\n\n"):
        joined = f"{current}\n\n{paragraph}" if current else paragraph
        if len(joined) <= limit:
            current = joined
            continue
        if current:
            pieces.append(current)
        *full, current = _cut(paragraph, limit)
        pieces += full
    pieces.append(current)
    return [piece.strip("\n") for piece in pieces if piece.strip()]


def _cut(paragraph: str, limit: int) -> list[str]:
    """A long paragraph at line ends, a long line at `limit` characters."""
    pieces = [""]
    for line in paragraph.split("\n"):
        for start in range(0, max(len(line), 1), limit):
            part = line[start : start + limit]
            if len(pieces[-1]) + 1 + len(part) <= limit:
                pieces[-1] = f"{pieces[-1]}\n{part}" if pieces[-1] else part
            else:
                pieces.append(part)
    return pieces


def _prose(library: Library) -> Iterator[Passage]:
    for module in library.modules:
        yield from _pieces(module.name, module.name, module.doc, title=module.name)
        for item in module.definitions:
            yield from _pieces(item.name, item.module, item.doc, title=item.qualname)
    for label, text in library.topics:
        yield from _pieces(f"{TOPICS_MODULE}.{label}", TOPICS_MODULE, text, title=label)


def _pieces(name: str, module: str, text: str, title: str) -> Iterator[Passage]:
    for number, piece in enumerate(split(text), start=1):
        if len(piece) >= PROSE_CHARS:
            yield Passage(
                id=f"{name}#doc" if number == 1 else f"{name}#doc-{number}",
                text=piece,
                task="retrieval.passage",
                title=title,
                module=module,
                kind="prose",
            )


def _code(library: Library) -> Iterator[Passage]:
    for item in _definitions(library):
        if len(item.code) <= PASSAGE_CHARS and item.code.count("\n") + 1 in CODE_LINES:
            yield _row(item, "code", item.code, "code.passage")


def _summaries(library: Library) -> Iterator[Passage]:
    for item in _definitions(library):
        sentence = summary(item.doc)
        if 20 <= len(sentence) <= 200:
            yield _row(item, "summary", sentence, "text-matching")


def _queries(library: Library, kept_ids: set[str]) -> Iterator[Passage]:
    """Questions whose answer is in the corpus: the row of the same name with `#doc` or `#code`."""
    for item in _definitions(library):
        sentence = summary(item.doc)
        if f"{item.name}#code" in kept_ids and 20 <= len(sentence) <= 200:
            yield _row(item, "code-query", sentence, "code.query")
        if f"{item.name}#doc" in kept_ids:
            asked = "What is the class {} for" if item.is_class else "What does {} do"
            question = f"{asked.format(item.qualname)} in the module {item.module}?"
            yield _row(item, "query", question, "retrieval.query")


def _definitions(library: Library) -> Iterator[Definition]:
    for module in library.modules:
        yield from module.definitions


def _row(item: Definition, role: str, text: str, task: str) -> Passage:
    return Passage(
        id=f"{item.name}#{role}",
        text=text,
        task=task,
        title=item.qualname,
        module=item.module,
        kind="code" if role == "code" else "prose",
    )


def _distinct(passages: Iterable[Passage]) -> list[Passage]:
    """Without repeated ids, and without repeated texts of one task."""
    by_text = {(passage.task, passage.text): passage for passage in reversed(list(passages))}
    return list({passage.id: passage for passage in by_text.values()}.values())


def _mixed(passages: Iterable[Passage], salt: str = "") -> list[Passage]:
    return sorted(passages, key=lambda passage: (stable_hash(passage.id + salt), passage.id))


def stable_hash(name: str) -> bytes:
    """A key that orders names without regard to what they say, the same in every process."""
    return blake2b(name.encode(), digest_size=8).digest()


def _by_quota(passages: Iterable[Passage]) -> Iterator[Passage]:
    taken: Counter[str] = Counter()
    for passage in passages:
        if taken[passage.task] < QUOTAS[passage.task]:
            taken[passage.task] += 1
            yield passage
