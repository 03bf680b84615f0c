"""What is read of the package index, of manual pages and of Python's sources."""

import gzip
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.corpus.stdlib import read_library
from pipeline.errors import SourceError
from pipeline.nano.debian import Description, Package, read_later, read_packages, release
from pipeline.nano.functions import read_docstrings, read_functions
from pipeline.nano.manuals import read_manuals

_MANUAL = r"""'\" t
.\" a comment
.TH QSORT 3
.SH NAME
qsort, qsort_r \- sort an array
.SH SYNOPSIS
.B void qsort(void);
.SH DESCRIPTION
The
.BR qsort ()
function sorts an array with \fInmemb\fP elements.
.PP
It is \(lqfast\(rq.
.SH BUGS
None.
"""

_GERMAN = r""".TH QSORT 3
.SH BEZEICHNUNG
qsort \- ein Feld sortieren, m\(:oglichst schnell
.SH BESCHREIBUNG
Gro\(ss.
"""


def test_packages_have_their_descriptions_family_and_current_translations(
    packages: list[Package],
) -> None:
    assert [package.name for package in packages] == ["chess", "chess-data", "zip"]
    chess, data, packer = packages
    assert (chess.family, data.family, packer.family) == ("games", "games", "zip")
    assert chess.english.short == "play chess"
    assert chess.english.long == (
        "A board with two players and a clock.\nFeatures:\n* it thinks\n* it wins"
    )
    assert chess.translated["de"].short == "Schach spielen"
    assert not packer.translated


def test_the_index_says_what_it_is_of(index: Path) -> None:
    assert release(index) == "Debian stable of Sat, 11 Jul 2026 10:16:37 UTC"


def test_without_apt_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"^apt-get: not found; .* on Debian"):
        read_packages(tmp_path / "index")


def _pretend_apt(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have `apt-get` do what a script does."""
    program = folder / "apt-get"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin")


def test_an_index_that_was_not_fetched_whole_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_apt(tmp_path, monkeypatch, "echo 'E: no route to the mirror' >&2\nexit 100")
    for _ in range(2):
        with pytest.raises(SourceError, match="apt-get update: E: no route to the mirror"):
            read_packages(tmp_path / "index")


def test_an_index_in_a_relative_folder_goes_there_and_an_empty_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_apt(tmp_path, monkeypatch, 'echo "$@" > arguments')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="brought no package index; name Debian's mirrors"):
        read_packages(Path("index"))
    assert f"Dir::State::Lists={tmp_path}/index " in (tmp_path / "arguments").read_text()
    assert not (tmp_path / "index" / "complete").exists()


_LATER = """\
Package: chess
Description: play chess
 Nothing but a new long description.

Package: cc-15
Description: compiler 15.2
 It compiles.

Package: cc
Description: Compiler
 It compiles C 16.

Package: go
Description: play go
 A board of 19 lines.

"""


def test_later_packages_are_those_of_which_both_descriptions_are_new(
    index: Path, packages: list[Package], tmp_path: Path
) -> None:
    later = tmp_path / "later"
    later.mkdir()
    (later / "complete").touch()
    stanzas = _LATER.replace("Description: ", "Description-md5: {}\nDescription-en: ")
    numbered = stanzas.format(*range(4))
    for name in ("binary-amd64_Packages", "i18n_Translation-en"):
        (later / f"mirror_debian_dists_unstable_main_{name}").write_text(numbered)
    compiler = Description(short="compiler 14", long="It compiles C 14.")
    known = [*packages, replace(packages[0], name="cc-14", english=compiler)]
    found = read_later(later, index, known)
    assert [package.name for package in found] == ["go"]
    assert found[0].english == Description(short="play go", long="A board of 19 lines.")


def test_later_packages_come_from_the_machines_mirror_and_from_nowhere_else(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "later"
    answers = f"""
    echo "$@" >> {tmp_path}/asked
    if [ "$1" = indextargets ]; then echo http://mirror/debian; echo http://other/debian; exit; fi
    cp {later}/cache/sources.list {tmp_path}
    cp {index}/*_Packages {index}/*_Translation-en {later}"""
    _pretend_apt(tmp_path, monkeypatch, answers)
    assert [package.name for package in read_later(later, index, [])] == [
        *("chess", "chess-data", "zip")
    ]
    (source,) = (tmp_path / "sources.list").read_text().splitlines()
    assert re.fullmatch(r"deb \[signed-by=\S+\] http://mirror/debian unstable main", source)
    mirrors, update = (tmp_path / "asked").read_text().splitlines()
    assert f"Dir::State::Lists={index} " in mirrors and "Label: Debian " in mirrors
    assert update.startswith("update ") and f"Dir::State::Lists={later} " in update
    assert f"Dir::Etc::SourceList={later}/cache/sources.list" in update
    assert "Dir::Etc::SourceParts=-" in update
    # it is there now, and not asked for again
    read_later(later, index, [])
    assert len((tmp_path / "asked").read_text().splitlines()) == 2


def test_without_a_mirror_of_debian_a_sentence_says_so(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_apt(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(SourceError, match="no source is a mirror of Debian; name one"):
        read_later(tmp_path / "later", index, [])


def test_a_manual_page_gives_its_purpose_and_its_description(tmp_path: Path) -> None:
    for folder, source in (("man3", _MANUAL), ("de/man3", _GERMAN)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "qsort.3.gz").write_bytes(gzip.compress(source.encode()))
    (tmp_path / "man3" / "alias.3.gz").symlink_to("qsort.3.gz")
    (tmp_path / "man3" / "odd.3").write_text(".SH NAME\nnothing here\n")
    english, german = read_manuals(tmp_path)
    assert (english.name, english.section, english.family) == ("qsort", "3", "qsort")
    assert english.purpose == "sort an array"
    assert english.text == (
        "The qsort () function sorts an array with nmemb elements.\nIt is fast."
    )
    assert german.language == "de"
    assert german.purpose == "ein Feld sortieren, möglichst schnell"
    assert german.text == "Groß."


def test_functions_have_no_docstring_in_their_code_and_come_once(tmp_path: Path) -> None:
    source = (
        "def add(one, other):\n"
        '    """Add two numbers. And no more."""\n'
        "    total = one + other\n"
        "    return total\n\n\n"
        "def bare(one):\n"
        "    total = one\n"
        "    return total\n\n\n"
        "def short(one):\n"
        '    """Too short."""\n'
        "    total = one\n"
        "    return total\n"
    )
    for package in ("first", "second"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(source)
    found = read_functions([read_library(tmp_path)])
    (add,) = found.documented
    assert (add.name, add.family) == ("first.add", "first")
    assert add.purpose == "Add two numbers."
    assert add.code == "def add(one, other):\n    total = one + other\n    return total"
    # names of a word or two say nothing either
    assert not found.private and not found.named


def test_private_functions_and_those_without_a_docstring_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text(
        "class WordCounter:\n"
        "    def countAll(self, text):\n"
        "        words = text.split()\n"
        "        return self.countAll(words)\n\n"
        "    def __len__(self):\n"
        "        length = 1\n"
        "        return length\n\n"
        "    def _reset(self):\n"
        '        """Begin with no words."""\n'
        "        self.words = []\n"
        "        return self\n\n\n"
        "class _Hidden:\n"
        "    def shown(self):\n"
        '        """Say whether it is shown."""\n'
        "        answer = False\n"
        "        return answer\n\n\n"
        "def parse_HTTPHeader(line):\n"
        '    """Parse."""\n'
        "    name = line\n"
        "    return name\n"
    )
    library = read_library(tmp_path)
    found = read_functions([library])
    assert not found.documented
    assert [(f.name, f.purpose) for f in found.private] == [
        ("words.WordCounter._reset", "Begin with no words."),
        ("words._Hidden.shown", "Say whether it is shown."),
    ]
    assert [(f.name, f.purpose) for f in found.named] == [
        ("words.WordCounter.countAll", "word counter count all"),
        ("words.parse_HTTPHeader", "parse http header"),
    ]
    # the name is nowhere in the code that is to be found by it
    assert found.named[0].code == (
        "def _(self, text):\n    words = text.split()\n    return self._(words)"
    )
    assert [item.qualname for module in library.public.modules for item in module.definitions] == [
        "WordCounter",
        "WordCounter.countAll",
        "WordCounter.__len__",
        "parse_HTTPHeader",
    ]


def test_what_a_docstring_says_after_its_first_sentence_is_the_rest(tmp_path: Path) -> None:
    more = "It goes on for as long as there is something more to be said about it."
    (tmp_path / "said.py").write_text(
        f'"""Say it all at\nonce. {more}\n\nAnd a paragraph."""\n\n'
        f'def short():\n    """Say a word more. No."""\n\n'
        f'def again():\n    """Say it all at once. {more}\n\n    And a paragraph."""\n'
    )
    (said,) = read_docstrings([read_library(tmp_path)])
    assert said.first == "Say it all at once."
    assert said.rest == f"{more}\nAnd a paragraph."
    assert said.family == "said"
