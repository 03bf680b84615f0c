"""Some packages as the index has them, and what a teacher might say of them."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.nano.debian import Package, read_packages
from pipeline.nano.teacher import Taught

_PACKAGES = """\
Package: chess
Source: games (1.2)
Description: play chess
Description-md5: 1111

Package: chess-data
Source: games
Description: boards and pieces for chess
Description-md5: 2222

Package: zip
Description: pack files
Description-md5: 3333

Package: nobody
Description: a package without a long description
Description-md5: 4444

Package: zip
Description: pack files, as it was before
Description-md5: 5555
"""

_ENGLISH = """\
Package: chess
Description-md5: 1111
Description-en: play chess
 A board with two players
 and a clock.
 .
 Features:
  * it thinks
  * it wins

Package: chess-data
Description-md5: 2222
Description-en: boards and pieces for chess
 Pictures of wood.

Package: zip
Description-md5: 3333
Description-en: pack files
 Makes them small.

Package: zip
Description-md5: 5555
Description-en: pack files, as it was before
 Made them small.
"""

_GERMAN = """\
Package: chess
Description-md5: 1111
Description-de: Schach spielen
 Ein Brett für zwei.

Package: zip
Description-md5: 0000
Description-de: veraltet
 Von einer älteren Fassung.
"""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """The lists of an index that was fetched."""
    lists = tmp_path / "index"
    lists.mkdir()
    named = "mirror_debian_dists_stable_main"
    (lists / f"{named}_binary-amd64_Packages").write_text(_PACKAGES)
    (lists / f"{named}_i18n_Translation-en").write_text(_ENGLISH)
    (lists / f"{named}_i18n_Translation-de").write_text(_GERMAN)
    (lists / "mirror_debian_dists_stable_InRelease").write_text(
        "Label: Debian\nCodename: stable\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n"
    )
    (lists / "complete").touch()
    return lists


@pytest.fixture
def packages(index: Path) -> list[Package]:
    return read_packages(index)


@pytest.fixture
def taught(packages: list[Package]) -> Taught:
    """What it might say: nobody can ask the real one without a download of 80 MB."""
    sentences = list(dict.fromkeys(package.english.short for package in packages))
    vectors = np.random.default_rng(0).standard_normal((len(sentences), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = {sentence: number for number, sentence in enumerate(sentences)}
    return Taught(numbers=numbers, vectors_ND=vectors.astype(np.float16))
