"""Python's functions and docstrings: the standard library's and the dependencies'.

Sources are read as the quickstart corpus reads them (`pipeline.corpus.stdlib`): parsed, never
imported, docstrings cut out of the code.
"""

import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.corpus.passages import CODE_LINES, PROSE_CHARS
from pipeline.corpus.stdlib import (
    Definition,
    Library,
    parted,
    read_library,
    stdlib_root,
    summary,
)

_FEWEST_WORDS = 3
"""Sentences and names that have fewer say nothing to search by."""

_MOST_CHARACTERS = 200
"""Of a first sentence; a longer one is no question."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function or method."""

    name: str
    """Dotted, module included."""
    purpose: str
    """The first sentence of its docstring, or the words of its name."""
    code: str
    """Its source, without what says its purpose."""

    @property
    def family(self) -> str:
        """The package that it is of."""
        return _package(self.name)


@dataclass(frozen=True, kw_only=True)
class Functions:
    """All that have something to be found by; equal ones once."""

    documented: list[Function]
    """Public, with a docstring."""
    private: list[Function]
    """Private, with a docstring."""
    named: list[Function]
    """Without a docstring: the words of the name are their purpose, and it is cut out of them."""


@dataclass(frozen=True, kw_only=True)
class Docstring:
    """What is said of a module, a class or a function."""

    first: str
    """The first sentence."""
    rest: str
    """What comes after that."""
    family: str
    """The package that it is of."""


def environment() -> list[Library]:
    """What this environment has: the standard library, and all that is installed.

    Takes about two minutes, and 2 GB.
    """
    return [read_library(root) for root in (stdlib_root(), Path(sysconfig.get_path("purelib")))]


def read_functions(libraries: Sequence[Library]) -> Functions:
    """The functions of some libraries."""
    everything = [
        item
        for library in libraries
        for module in library.modules
        for item in module.definitions
        if item.code and item.lines in CODE_LINES
    ]
    public = [item for item in everything if not item.is_private]
    private = [item for item in everything if item.is_private]
    seen: set[str] = set()
    return Functions(
        documented=list(_distinct(map(_documented, public), seen)),
        private=list(_distinct(map(_documented, private), seen)),
        named=list(_distinct(map(_named, everything), seen)),
    )


def read_docstrings(libraries: Sequence[Library]) -> list[Docstring]:
    """The docstrings of some libraries that go on after their first sentence; equal ones once."""
    said = (
        Docstring(first=first, rest=rest, family=_package(module.name))
        for library in libraries
        for module in library.modules
        for first, rest in map(parted, (module.doc, *(item.doc for item in module.definitions)))
        if _says(first) and len(first) <= _MOST_CHARACTERS and len(rest) >= PROSE_CHARS
    )
    found: dict[tuple[str, str], Docstring] = {}
    for docstring in said:
        found.setdefault((docstring.first, docstring.rest), docstring)
    return list(found.values())


def _documented(item: Definition) -> Function | None:
    purpose = summary(item.doc)
    return Function(name=item.name, purpose=purpose, code=item.code) if _says(purpose) else None


def _named(item: Definition) -> Function | None:
    *scope, name = item.qualname.split(".")
    words = _WORDS.findall(name)
    if len(words) < _FEWEST_WORDS:
        # a method's name is short, since its class says the rest
        words = _WORDS.findall(" ".join([*scope[-1:], name]))
    if _says(summary(item.doc)) or name.startswith("__") or len(words) < _FEWEST_WORDS:
        return None
    code = re.sub(rf"\b{re.escape(name)}\b", "_", item.code)
    return Function(name=item.name, purpose=" ".join(words).lower(), code=code)


def _distinct(functions: Iterable[Function | None], seen: set[str]) -> Iterator[Function]:
    """Those of which neither purpose nor code was seen before."""
    for function in functions:
        if function is not None and not {function.code, function.purpose} & seen:
            seen |= {function.code, function.purpose}
            yield function


def _says(sentence: str) -> bool:
    return len(sentence.split()) >= _FEWEST_WORDS


def _package(name: str) -> str:
    return name.split(".")[0]
