"""Debian's package index: every package's short and long description, in several languages.

It is read with apt, which checks its signatures, from the mirrors that this machine has; the
machine's own lists are left alone. About 100 MB are kept beside the pairs, and fetched once.
Descriptions in other languages are made by people (https://www.debian.org/international/l10n/ddtp)
and joined to a package by the digest of the English one, so an outdated one is never taken.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SourceError

LANGUAGES = ("de", "fr", "ja")
"""Those of the translations."""

_DOT = re.compile(r"^ \.\s*$")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is said of a package in one language."""

    short: str
    """One line."""
    long: str
    """Paragraphs; the short one is no part of it."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One binary package."""

    name: str
    """Of the package."""
    family: str
    """Its source package."""
    english: Description
    """The original."""
    translated: dict[str, Description]
    """By language; most packages have few."""


def read_packages(lists: Path) -> list[Package]:
    """All packages of the machine's release, by name; of several versions the first one.

    Args:
        lists: where the index is kept; fetched unless it is there.

    Raises:
        SourceError: there is no apt, or it cannot fetch the index.
    """
    if not (lists / "complete").exists():
        _fetch(lists)
    families: dict[tuple[str, str], str] = {}
    for path in sorted(lists.glob("*_Packages")):
        for stanza in _stanzas(path):
            source = stanza.get("Source", stanza["Package"]).split(" ")[0]
            families.setdefault((stanza["Package"], stanza.get("Description-md5", "")), source)
    said: dict[str, dict[str, Description]] = {}
    for language in ("en", *LANGUAGES):
        for path in sorted(lists.glob(f"*_Translation-{language}")):
            for stanza in _stanzas(path):
                short, _, rest = stanza.get(f"Description-{language}", "").partition("\n")
                description = Description(short=short.strip(), long=_unfolded(rest))
                if description.short and description.long:
                    said.setdefault(stanza["Description-md5"], {})[language] = description
    found: dict[str, Package] = {}
    for (name, digest), family in sorted(families.items()):
        described = said.get(digest, {})
        if "en" in described and name not in found:
            found[name] = Package(
                name=name,
                family=family,
                english=described["en"],
                translated={lang: described[lang] for lang in LANGUAGES if lang in described},
            )
    return list(found.values())


def release(lists: Path) -> str:
    """The index's own name and date."""
    lines = []
    for path in sorted(lists.glob("*InRelease")):
        fields = dict(re.findall(r"^(Label|Suite|Codename|Date): (.*)$", path.read_text(), re.M))
        lines.append(f"{fields.get('Label')} {fields.get('Codename')} of {fields.get('Date')}")
    return "; ".join(lines)


def _options(lists: Path) -> list[str]:
    return [
        *("-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={lists / 'cache'}"),
        # apt drops its rights to a user who could not write here
        *("-o", "APT::Sandbox::User=", "-o", "Debug::NoLocking=true"),
        # read as they are: with compressed lists apt takes minutes
        *("-o", "Acquire::GzipIndexes=false", "-o", "Acquire::PDiffs=false"),
        *("-o", f"Acquire::Languages={','.join(('en', *LANGUAGES))}"),
    ]


def _fetch(lists: Path) -> None:
    for folder in (lists / "partial", lists / "cache"):
        folder.mkdir(parents=True, exist_ok=True)
    # to apt a relative path is one below its own folder
    options = _options(lists.resolve())
    _apt(["update", "-qq", "-o", "APT::Update::Error-Mode=any", *options])
    if not list(lists.glob("*_Packages")):
        raise SourceError(
            "apt-get update: brought no package index; name Debian's mirrors in apt's sources"
        )
    (lists / "complete").touch()


def _apt(arguments: list[str]) -> None:
    try:
        done = subprocess.run(["apt-get", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise SourceError(
            "apt-get: not found; nano's pairs are made from Debian's package index, so make them "
            "on Debian, or in its container image"
        ) from None
    if done.returncode:
        raise SourceError(f"apt-get {arguments[0]}: {done.stderr.strip()[-300:]}")


def _stanzas(path: Path) -> Iterator[dict[str, str]]:
    """The fields of each paragraph of a control file; a field's own lines stay as they are."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        fields: dict[str, str] = {}
        key = ""
        for line in stream:
            if line == "\n":
                if fields:
                    yield fields
                fields = {}
            elif line[0] in " \t":
                fields[key] += "\n" + line.rstrip("\n")
            else:
                key, _, value = line.rstrip("\n").partition(":")
                fields[key] = value.strip()
        if fields:
            yield fields


def _unfolded(lines: str) -> str:
    """A long description: paragraphs on one line each, lists and what is set apart line by line."""
    paragraphs: list[str] = []
    is_open = False
    for line in lines.split("\n"):
        if _DOT.match(line) or not line.strip():
            is_open = False
        elif line.startswith("  ") or not is_open:
            paragraphs.append(" ".join(line.split()))
            is_open = not line.startswith("  ")
        else:
            paragraphs[-1] += " " + " ".join(line.split())
    return "\n".join(paragraphs)
