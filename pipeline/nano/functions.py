"""Python functions and what their docstrings say: the standard library's and the dependencies'.

Sources are read as the quickstart corpus reads them (`pipeline.corpus.stdlib`): parsed, never
imported, docstrings cut out of the code.
"""

import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.corpus.passages import CODE_LINES
from pipeline.corpus.stdlib import Definition, read_library, stdlib_root, summary

FEWEST_WORDS = 3
"""Docstrings whose first sentence has fewer say nothing to search by."""


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function or method."""

    name: str
    """Dotted, module included."""
    purpose: str
    """The first sentence of its docstring."""
    code: str
    """Its source without the docstring."""

    @property
    def family(self) -> str:
        """The package that it is of."""
        return self.name.split(".")[0]


def environment() -> tuple[Path, ...]:
    """Where this environment has its packages."""
    return stdlib_root(), Path(sysconfig.get_path("purelib"))


def read_functions(roots: Sequence[Path]) -> Iterator[Function]:
    """All that have code and a docstring; equal ones once."""
    seen: set[str] = set()
    for root in roots:
        for module in read_library(root).modules:
            for item in module.definitions:
                function = _function(item)
                if function is not None and not {function.code, function.purpose} & seen:
                    seen |= {function.code, function.purpose}
                    yield function


def _function(item: Definition) -> Function | None:
    purpose = summary(item.doc)
    if not item.code or item.lines not in CODE_LINES or len(purpose.split()) < FEWEST_WORDS:
        return None
    return Function(name=item.name, purpose=purpose, code=item.code)
