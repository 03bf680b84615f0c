"""Reads the standard library's sources: modules, their definitions and the language topics.

Sources are parsed with `ast` and never imported. Tests, vendored tools and packages that Debian
ships separately (idlelib, tkinter, lib2to3, distutils, ...) are left out, so that two installations
of one Python version give nearly the same corpus. A file that cannot be read or parsed is skipped.
Reading about 300 files takes 3 to 6 seconds on one core.
"""

import ast
import inspect
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent

SKIPPED = frozenset(
    {"antigravity", "dist-packages", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3"}
    | {"pydoc_data", "site-packages", "sitecustomize", "test", "tests", "this", "tkinter"}
    | {"turtledemo", "usercustomize"}
)
"""File and folder names that give no rows, at any depth."""

TOPICS_MODULE = "pydoc_data.topics"
"""The module name that rows from the language reference carry."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One class or function, or a method of a class."""

    module: str
    """Dotted module name."""
    qualname: str
    """Name inside the module, for example `JSONDecoder.raw_decode`."""
    is_class: bool
    """Whether it is a class."""
    doc: str
    """The cleaned docstring; empty when there is none."""
    code: str
    """Source of a function, dedented, without its docstring; empty for a class."""
    lines: int
    """How many source lines the definition spans."""

    @property
    def name(self) -> str:
        """The dotted name, module included."""
        return f"{self.module}.{self.qualname}"

    @property
    def is_private(self) -> bool:
        """Whether it, or what it is defined in, has a name for inner use."""
        names = self.qualname.split(".")
        return any(name.startswith("_") and not name.endswith("__") for name in names)


@dataclass(frozen=True, kw_only=True)
class Module:
    """One source file."""

    name: str
    """Dotted name, for example `json.decoder`."""
    doc: str
    """The cleaned module docstring; empty when there is none."""
    lines: int
    """How many lines the file has."""
    definitions: tuple[Definition, ...]
    """Classes, functions and methods in source order, each name once."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """What was read from one installation."""

    modules: tuple[Module, ...]
    """Sorted by name."""
    topics: tuple[tuple[str, str], ...]
    """Label and text of each topic of the language reference, sorted; may be empty."""

    @property
    def public(self) -> "Library":
        """The same without private definitions."""
        return replace(
            self,
            modules=tuple(
                replace(
                    module,
                    definitions=tuple(item for item in module.definitions if not item.is_private),
                )
                for module in self.modules
            ),
        )


def stdlib_root() -> Path:
    """The folder of this interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def read_library(root: Path) -> Library:
    """Everything that is said there, in a fixed order."""
    modules = (_read_module(root, path) for path in _source_files(root))
    return Library(
        modules=tuple(module for module in modules if module is not None),
        topics=tuple(_read_topics(root / "pydoc_data" / "topics.py")),
    )


def summary(doc: str) -> str:
    """The first sentence of a docstring, on one line."""
    return parted(doc)[0]


def parted(doc: str) -> tuple[str, str]:
    """The first sentence of a docstring, on one line, and what comes after it; both may be empty.

    The rest of the first paragraph is on one line too, the other paragraphs are as they were.
    """
    paragraph, _, others = doc.partition("\n\n")
    first, *more = re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split()), maxsplit=1)
    return first, "\n".join([*more, others]).strip()


def _source_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        name = path.name.removesuffix(".py")
        if name in SKIPPED or (name.startswith("_") and name != "__init__"):
            continue
        if path.is_dir():
            if (path / "__init__.py").is_file():
                yield from _source_files(path)
        elif path.suffix == ".py":
            yield path


def _parse(path: Path) -> tuple[ast.Module, list[str]] | None:
    try:
        with tokenize.open(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = file.read()
            return ast.parse(source), source.split("\n")
    except (OSError, SyntaxError, ValueError):
        return None


def _read_module(root: Path, path: Path) -> Module | None:
    parsed = _parse(path)
    if parsed is None:
        return None
    tree, lines = parsed
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    found: dict[str, Definition] = {}
    for qualname, node in _definitions(tree, prefix=""):
        if qualname not in found:
            found[qualname] = _definition(name, qualname, node, lines)
    return Module(
        name=name,
        doc=_doc(tree),
        lines=len(lines),
        definitions=tuple(found.values()),
    )


def _definitions(scope: ast.AST, prefix: str) -> Iterator[tuple[str, FunctionNode | ast.ClassDef]]:
    """Definitions of a module or class, also those under `if` and `try`; not nested ones."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, FunctionNode | ast.ClassDef):
            qualname = f"{prefix}{node.name}"
            yield qualname, node
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, prefix=f"{qualname}.")
        elif isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            yield from _definitions(node, prefix)


def _definition(
    module: str, qualname: str, node: FunctionNode | ast.ClassDef, lines: list[str]
) -> Definition:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    last = node.end_lineno or node.lineno
    is_class = isinstance(node, ast.ClassDef)
    return Definition(
        module=module,
        qualname=qualname,
        is_class=is_class,
        doc=_doc(node),
        code="" if is_class else _code_without_doc(node, lines, first, last),
        lines=last - first + 1,
    )


def _code_without_doc(
    node: FunctionNode | ast.ClassDef, lines: list[str], first: int, last: int
) -> str:
    """The source of a function, so that a query made from its docstring is not already in it."""
    kept = list(range(first, last + 1))
    doc = node.body[0]
    if ast.get_docstring(node, clean=False) is not None and doc.lineno > node.lineno:
        if len(node.body) == 1:
            return ""
        end = min(doc.end_lineno or doc.lineno, node.body[1].lineno - 1)
        while not lines[end].strip():
            end += 1
        kept = [line for line in kept if not doc.lineno <= line <= end]
    return dedent("\n".join(lines[line - 1].rstrip() for line in kept)).strip("\n")


def _doc(node: ast.Module | FunctionNode | ast.ClassDef) -> str:
    doc = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
    return "\n".join(line.rstrip() for line in doc.strip().split("\n"))


def _read_topics(path: Path) -> Iterator[tuple[str, str]]:
    """The literal `topics = {label: text}`; nothing when the file is missing or of another form."""
    parsed = _parse(path)
    for node in parsed[0].body if parsed else ():
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)):
            continue
        for key, value in zip(node.value.keys, node.value.values, strict=True):
            match key, value:
                case ast.Constant(value=str(label)), ast.Constant(value=str(text)):
                    yield label, inspect.cleandoc(text)
