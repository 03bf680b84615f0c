"""Debian's package index: every package's short and long description, in several languages.

It is read with apt, which checks its signatures, from the mirrors that this machine has; the
machine's own lists are left alone. About 250 MB are kept beside the pairs, and fetched once.
Descriptions in other languages are made by people (https://www.debian.org/international/l10n/ddtp)
and joined to a package by the digest of the English one, so an outdated one is never taken.
"""

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SourceError

LANGUAGES = ("de", "fr", "ja")
"""Those of the translations."""

LATER = "unstable"
"""The suite that every package comes to first."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Debian's own; a release's key is in the keyring of the release before it."""

_DOT = re.compile(r"^ \.\s*$")
_NUMBER = re.compile(r"\d[\d.]*")
_COMPLETE = "complete"


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


def read_packages(index: Path) -> list[Package]:
    """All packages of the machine's release, by name; of several versions the first one.

    Args:
        index: where it is kept; fetched unless it is there.

    Raises:
        SourceError: there is no apt, or it cannot fetch the index.
    """
    if not (index / _COMPLETE).exists():
        _fetch(index, [])
    return _read(index)


def read_later(later: Path, index: Path, packages: Sequence[Package]) -> list[Package]:
    """Packages of Debian's unstable release that say something new.

    Neither description is one of the machine's release, numbers aside: what a new version of a
    compiler says of itself is not new. On a machine that is unstable itself there are none.

    Args:
        later: where their index is kept; fetched unless it is there.
        index: of the machine's release, whose mirror is asked.
        packages: of the machine's release.

    Raises:
        SourceError: there is no mirror of Debian, or apt cannot fetch the index.
    """
    if not (later / _COMPLETE).exists():
        _fetch(later, _only(later, _mirror(index)))
    known = {_numberless(text) for p in packages for text in (p.english.short, p.english.long)}
    return [
        package
        for package in _read(later)
        if known.isdisjoint(map(_numberless, (package.english.short, package.english.long)))
    ]


def _numberless(text: str) -> str:
    return _NUMBER.sub("", text).lower()


def _read(lists: Path) -> list[Package]:
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


def _mirror(index: Path) -> str:
    """The address that the index of Debian itself came from, not that of its updates."""
    wanted = ("Created-By: Packages", "Label: Debian", "Component: main")
    options = _options(index.resolve())
    said = _apt(["indextargets", "--format", "$(REPO_URI)", *options, *wanted])
    if not said:
        raise SourceError(
            "apt-get indextargets: no source is a mirror of Debian; name one in apt's sources"
        )
    return said.split("\n")[0]


def _only(later: Path, mirror: str) -> list[str]:
    """Options of apt that have it read the later suite and nothing else."""
    # not among the lists, which apt keeps clean
    cache = later.resolve() / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    sources = cache / "sources.list"
    sources.write_text(f"deb [signed-by={_KEYRING}] {mirror} {LATER} main\n")
    return ["-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=-"]


def _fetch(lists: Path, sources: Sequence[str]) -> None:
    for folder in (lists / "partial", lists / "cache"):
        folder.mkdir(parents=True, exist_ok=True)
    # to apt a relative path is one below its own folder
    options = [*_options(lists.resolve()), *sources]
    _apt(["update", "-qq", "-o", "APT::Update::Error-Mode=any", *options])
    if not list(lists.glob("*_Packages")):
        raise SourceError(
            "apt-get update: brought no package index; name Debian's mirrors in apt's sources"
        )
    (lists / _COMPLETE).touch()


def _apt(arguments: list[str]) -> str:
    """What it prints."""
    try:
        done = subprocess.run(["apt-get", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise SourceError(
            "apt-get: not found; nano's pairs are made from Debian's package index, so make them "
            "on Debian, or in its container image"
        ) from None
    if done.returncode:
        raise SourceError(f"apt-get {arguments[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout


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
