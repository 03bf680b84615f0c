"""A spec file: YAML in, a `JobSpec` or another spec out, or one clear sentence.

Every key is checked here, before anything is listed or loaded. Beside what the contract refuses,
repeated keys and YAML aliases are: the first hide a mistake, the second can swell a small file
without bound. A value is shown only where a known key holds it: whatever else was written, in a
wrong place or under a misspelt key, may be a secret.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, overload

import yaml
from pydantic import Field, ValidationError

from pipeline.errors import SpecError
from pipeline.section import Section
from pipeline.spec import JobSpec, PoolSpec
from pipeline.stores import StoreSpec, has_password

_MAX_SPEC_BYTES = 1 << 20
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
"""A key that somebody may have meant; `secret:abc` is another thing."""
_DOTTED = re.compile(r"[\w-]+(\.[\w-]+)*")
_STORAGE = "storage"

Spec = TypeVar("Spec", bound=Section)


class _StorageSpec(Section):
    """What every spec has."""

    storage: list[StoreSpec] = Field(
        [], description="a list of object stores and how to reach them"
    )


@overload
def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> JobSpec: ...
@overload
def load_spec(path: str | Path, overrides: Sequence[str], kind: type[Spec]) -> Spec: ...
def load_spec(path: str | Path, overrides: Sequence[str] = (), kind: Any = JobSpec) -> Any:
    """Read and check a spec.

    Args:
        path: the YAML file.
        overrides: `key=value` settings that win over the file: the key a dotted path
            (`source.0.uri` in a list), the value YAML.
        kind: what it is a spec of; by default of a job.

    Raises:
        SpecError: the file cannot be read, or a key is wrong.
    """
    return parse_spec(_read_yaml(Path(path), kind), overrides, kind)


def keys_of(path: str | Path, overrides: Sequence[str] = ()) -> set[str]:
    """The sections of a spec, whatever it is of.

    Raises:
        SpecError: the file cannot be read.
    """
    raw = _read_yaml(Path(path), JobSpec)
    for override in overrides:
        _set(raw, override)
    return set(raw)


def load_storage(path: str | Path) -> list[StoreSpec]:
    """The `storage` section of a spec, whatever else it is of.

    Raises:
        SpecError: the file cannot be read, or the section is wrong.
    """
    raw = _read_yaml(Path(path), _StorageSpec)
    return list(parse_spec({_STORAGE: raw.get(_STORAGE, [])}, (), _StorageSpec).storage)


@overload
def parse_spec(raw: dict[str, Any], overrides: Sequence[str] = ()) -> JobSpec: ...
@overload
def parse_spec(raw: dict[str, Any], overrides: Sequence[str], kind: type[Spec]) -> Spec: ...
def parse_spec(raw: dict[str, Any], overrides: Sequence[str] = (), kind: Any = JobSpec) -> Any:
    """A spec as keys and values, which are changed as the overrides say, checked.

    Raises:
        SpecError: a key is wrong.
    """
    for override in overrides:
        _set(raw, override)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise SpecError(_sentence(error, kind)) from None


class _Loader(yaml.SafeLoader):
    """Plain YAML: no aliases (they can swell a small file without bound), no repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise SpecError(f"line {mark.line + 1}: YAML aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for at, key in enumerate(keys):
            if key in keys[:at]:
                line = node.value[at][0].start_mark.line + 1
                raise SpecError(f"line {line}: {_named(key)} is there twice")
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path, kind: type[Section]) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read the spec {path}: {error.strerror}") from None
    if len(text) > _MAX_SPEC_BYTES:
        raise SpecError(
            f"the spec {path} has {len(text)} bytes, at most {_MAX_SPEC_BYTES} are read"
        )
    try:
        raw = yaml.load(text, _Loader)
    except SpecError as error:
        raise SpecError(f"{path}, {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not YAML: {_problem(error)}") from None
    if not isinstance(raw, dict):
        raise SpecError(f"{path} must hold keys and values: {', '.join(kind.model_fields)}")
    return raw


def _problem(error: Exception) -> str:
    """What is wrong with a YAML text and where, without a word of the text."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = " ".join(part for part in (error.context, error.problem) if part)
        if "handle" in said or not isinstance(error, _BY_CHARACTERS):
            # tags and anchors are quoted there, and a password may look like one
            said = re.split("['\"]", said)[0].strip()
        return where + said
    if isinstance(error, yaml.reader.ReaderError):
        return f"{error.reason} at position {error.position}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "it holds a date or number of the right form and no value, such as 2024-13-45"


_BY_CHARACTERS = (yaml.scanner.ScannerError, yaml.parser.ParserError)
"""Errors that quote single characters and names of tokens."""


def _set(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not _DOTTED.fullmatch(path):
        raise SpecError("one --set is not of the form key=value, with a dotted path for the key")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise SpecError(f"--set {path}: what is behind the = is not a YAML value") from None
    *parents, last = path.split(".")
    node: Any = raw
    for part in parents:
        key = _key(node, part, path)
        if isinstance(node, dict) and not isinstance(node.get(key), dict | list):
            node[key] = {}
        node = node[key]
    node[_key(node, last, path)] = value


def _key(node: Any, part: str, path: str) -> str | int:
    """A part of a dotted path as the key or index it is in that container."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise SpecError(f"--set {path}: there is nothing to set below a plain value")
    if not part.isdecimal() or not part.isascii() or int(part) >= len(node):
        raise SpecError(f"--set {path}: {part!r} is not one of the {len(node)} entries")
    return int(part)


def _sentence(error: ValidationError, kind: type[Section]) -> str:
    """The first mistake, in one sentence: the key's path, the value, what was expected."""
    if stranger := _stranger(error, kind):
        return stranger
    # an unknown key first: where another is missing, it is most likely that one, misspelt
    problem = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place, fields, description = _locate(problem["loc"], kind)
    if problem["type"] == "value_error":  # our own validators say it all but the path
        message = str(problem["ctx"]["error"])
        return f"{place}.{message}" if place else message
    if problem["type"] == "field":
        return f"{place}: {problem['msg']}"
    value = "its value" if _STORAGE in problem["loc"] else _shown(problem["input"])
    if problem["type"] == "missing":
        return f"{place} is missing; expected {description}"
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        close = get_close_matches(key, fields, n=1)
        hint = f"did you mean {close[0]!r}" if close else f"the keys here are {', '.join(fields)}"
        if not _WORD.fullmatch(key):
            # such as `secret:abc`, without the space
            above = _locate(problem["loc"][:-1], kind)[0] or "the spec"
            return f"{above}: one key is not a word; the keys here are {', '.join(fields)}"
        return f"{place}: unknown key; {hint}"
    return f"{place}: {value} is not valid; expected {description}"


_COMMANDS = {
    "queries": "nightjar evaluate",
    "store": "nightjar backfill",
    "pairs": "nightjar train",
    "source": "nightjar embed",
}
"""By a key that only their specs have."""


def _stranger(error: ValidationError, kind: type[Section]) -> str | None:
    """A sentence, if this is a spec of something else: with other keys, without needed ones."""
    top = [found for found in error.errors() if len(found["loc"]) == 1]
    missing = [str(found["loc"][0]) for found in top if found["type"] == "missing"]
    extra = [str(found["loc"][0]) for found in top if found["type"] == "extra_forbidden"]
    known = list(kind.model_fields)
    strange = [
        key
        for key in extra
        if _WORD.fullmatch(key) and not get_close_matches(key, known, cutoff=0.75)
    ]
    if not missing or not strange:
        return None
    command = next((_COMMANDS[key] for key in extra if key in _COMMANDS), "another command")
    return (
        f"{strange[0]}: unknown key, and {missing[0]} is missing; is this a spec of {command}? "
        f"The keys here are {', '.join(known)}"
    )


def _shown(value: Any) -> str:
    """A value of a known key, without what is below it and without a password."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return "its value" if isinstance(value, str) and has_password(value) else repr(value)


def _named(key: object) -> str:
    return f"key {key!r}" if isinstance(key, str) and _WORD.fullmatch(key) else "a key"


def _locate(loc: tuple[int | str, ...], kind: type[Section]) -> tuple[str, list[str], str]:
    """The dotted path, the keys at its last section, and the description of its last key.

    Pydantic's own locations also hold, behind a key that may be of several kinds, which it tried.
    """
    section: type[Section] | None = kind
    path, fields, description = "", list(kind.model_fields), "a mapping"
    tag_next = False
    for part in loc:
        if tag_next and part in _TAGS:
            tag_next = False
            continue
        tag_next = part in _TAGGED
        if isinstance(part, int):
            path += f".{part}"
            continue
        if section is not None and part in section.model_fields:
            field = section.model_fields[part]
            description = field.description or description
            fields = list(section.model_fields)
            # below `pools` comes the name of a pool first
            section = _section_in(field.annotation) if part != "pools" else None
        elif path.endswith(".pools") and part != "[key]":
            section = PoolSpec
            fields = list(PoolSpec.model_fields)
        elif section is not None:
            fields = list(section.model_fields)
        elif not path.endswith(".pools") or part == "[key]":
            continue
        path += f".{part}"
    return path.removeprefix("."), fields, description


_TAGGED = ("source", "uri", "task")
_TAGS = ("one", "many", "name", "column", "own")


def _section_in(annotation: Any) -> type[Section] | None:
    """The section a field holds, below any union, list or mapping."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (_section_in(part) for part in get_args(annotation))
    return next((section for section in found if section is not None), None)
