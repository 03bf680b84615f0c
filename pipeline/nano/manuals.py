"""Manual pages: what a program or function is for, in one line, and how it is described.

Pages are taken from /usr/share/man as they are there, in English and the languages of the package
index. Their macros are taken off by rule, which is enough for prose and needs no groff. Of programs
that bring hundreds of pages (`gcloud-...`) only some are taken.
"""

import gzip
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.nano.debian import LANGUAGES

ROOT = Path("/usr/share/man")
MOST_OF_A_FAMILY = 200

_SECTIONS = re.compile(r"^\.S[Hh]\s+(.*)$", re.M)
_DESCRIPTIONS = {"DESCRIPTION", "BESCHREIBUNG", "説明"}
_NAMES = {"NAME", "BEZEICHNUNG", "NOM", "名前", "名称"}
_FONTS = re.compile(
    r"\\f(?:\[[^\]]*\]|\(..|.)|\\s[-+]?\d+|\\[&|^,/:%c]|\\m\[[^\]]*\]|\\k.|\\\{|\\\}"
)
_GLYPHS = {
    **{r"\-": "-", r"\(bu": "*", r"\(aq": "'", r"\(dq": '"', r"\e": "\\", r"\(co": "(C)"},
    **{r"\(em": "-", r"\(en": "-", r"\(lq": '"', r"\(rq": '"', r"\(oq": "'", r"\(cq": "'"},
    **{r"\ ": " ", r"\~": " ", r"\0": " ", r"\'": "'", r"\`": "`", r"\.": ".", r"\*(Aq": "'"},
    **{r"\(ss": "ß", r"\(AE": "Æ", r"\(oe": "œ", r"\(Fo": "«", r"\(Fc": "»", r"\(Bq": "„"},
}
_ACCENTS = {
    ":": "\u0308",
    "'": "\u0301",
    "`": "\u0300",
    "^": "\u0302",
    ",": "\u0327",
    "~": "\u0303",
}
"""Combining characters, by what groff writes before a letter."""

_ACCENTED = re.compile(r"\\\(([:'`^,~])([A-Za-z])")
_NUMBERED = re.compile(r"\\\[(?:u([0-9A-F]{4,5})|[^\]]*)\]")
_INLINE = {"B", "I", "R", "BR", "RB", "BI", "IB", "IR", "RI", "SM", "SB"}
_BREAKS = {"PP", "P", "LP", "TP", "IP", "HP", "sp", "br", "RS", "RE", "SS"}


@dataclass(frozen=True, kw_only=True)
class Manual:
    """One manual page."""

    name: str
    """Its first name, for example `qsort`."""
    section: str
    """For example `3`."""
    language: str
    """`en`, or one of the package index's."""
    purpose: str
    """The line of its NAME section, without the names."""
    text: str
    """Its DESCRIPTION section, as paragraphs."""

    @property
    def family(self) -> str:
        """What it shares with its neighbours: the first word of its name."""
        return re.split(r"[-_.:]", self.name.lower(), maxsplit=1)[0] or self.name


def read_manuals(root: Path = ROOT) -> Iterator[Manual]:
    """All pages that have both a name and a description, in the order of their files."""
    taken: Counter[tuple[str, str]] = Counter()
    for language in ("en", *LANGUAGES):
        folder = root if language == "en" else root / language
        for path in sorted(folder.glob("man*/*")):
            manual = _read(path, language) if path.is_file() and not path.is_symlink() else None
            if manual is not None and taken[language, manual.family] < MOST_OF_A_FAMILY:
                taken[language, manual.family] += 1
                yield manual


def _read(path: Path, language: str) -> Manual | None:
    content = path.read_bytes()
    try:
        source = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (UnicodeDecodeError, gzip.BadGzipFile):
        return None  # of an older encoding; few are left
    sections = dict(_sections(source))
    naming = next((sections[key] for key in sections if key in _NAMES), "")
    text = next((sections[key] for key in sections if key in _DESCRIPTIONS), "")
    names, _, purpose = " ".join(_prose(naming).split()).partition(" - ")
    name = names.split(",")[0].strip()
    if not purpose or not name or " " in name:
        return None
    stem = path.name.removesuffix(".gz")
    return Manual(
        name=name,
        section=stem.rpartition(".")[2],
        language=language,
        purpose=purpose.strip(),
        text=_prose(text),
    )


def _sections(source: str) -> Iterator[tuple[str, str]]:
    parts = _SECTIONS.split(source)[1:]
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        yield _plain(title).strip('" '), body


def _prose(source: str) -> str:
    """The words of a section, a paragraph a line."""
    paragraphs = [""]
    for line in source.split("\n"):
        is_macro = line.startswith((".", "'"))
        macro, _, arguments = line[1:].partition(" ") if is_macro else ("", "", line)
        if macro in _BREAKS or not line.strip():
            paragraphs.append("")
        if not macro or macro in _INLINE:
            words = _plain(arguments)
            paragraphs[-1] += (" " + words if paragraphs[-1] else words).rstrip()
    return "\n".join(" ".join(p.split()) for p in paragraphs if p.strip())


def _plain(text: str) -> str:
    """A line without what only a typesetter reads."""
    text = _FONTS.sub("", text)
    for escape, character in _GLYPHS.items():
        text = text.replace(escape, character)
    text = _ACCENTED.sub(lambda m: m[2] + _ACCENTS[m[1]], text)
    text = _NUMBERED.sub(lambda m: chr(int(m[1], 16)) if m[1] else "", text)
    return unicodedata.normalize("NFC", text.replace('"', ""))
