"""The pairs that nano is trained and measured on, as Parquet.

    train/packages.en-en.parquet ...      short descriptions against long ones, of two languages
    train/later.en-en.parquet ...         the same of packages that came to Debian since
    train/titles.de-en.parquet ...        short descriptions against their translations
    train/pieces.en-en.parquet ...        words of a long description against the rest of it
    train/graded.parquet                  short descriptions that a teacher says are so close
    train/manuals.same.parquet ...        purposes of manual pages against their descriptions
    train/functions.parquet ...           docstrings against the code that they were cut out of
    train/docstrings.parquet              their first sentences against the rest of them
    train/lines.parquet                   pieces of titles against images of themselves
    train/heads.parquet                   short descriptions against the upper part of a page
    train/pages.parquet                   titles against whole pages
    held-out/...                          the same of other families
    PAIRS.json                            written last: what is here, and what it was made from

A family (a source package, a Python package, the programs that share a first word) is trained on
as a whole or held out as a whole, by a hash of its name: what is held out was never seen, nor was
its neighbour. Takes half an hour on two fast cores, and 50 minutes on one: a third of it is the
teacher's, and the drawing of images takes as long again.
"""

import hashlib
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.nano.debian import read_later, read_packages, release
from pipeline.nano.functions import environment, read_docstrings, read_functions
from pipeline.nano.graded import grade
from pipeline.nano.manuals import read_manuals
from pipeline.nano.rows import (
    Row,
    of_docstrings,
    of_functions,
    of_images,
    of_manuals,
    of_packages,
    of_pages,
    of_pieces,
    of_titles,
)
from pipeline.nano.teacher import Taught

HELD_OUT = 0.12
"""Share of the families that nothing is trained on."""

MANIFEST = "PAIRS.json"
_INDEX, _LATER = "index", "later"
_GRADED = "graded"
Side = Literal["train", "held-out"]
SIDES: tuple[Side, ...] = ("train", "held-out")


def side_of(family: str) -> Side:
    """To which side a family belongs."""
    digest = hashlib.sha256(f"nano {family}".encode()).digest()
    return "held-out" if int.from_bytes(digest[:8], "big") < HELD_OUT * (1 << 64) else "train"


def write_pairs(directory: Path) -> None:
    """Write all pairs, unless they are there.

    Raises:
        SourceError: there is no package index to be had, or no teacher.
    """
    if (directory / MANIFEST).exists():
        return
    index, newer = directory / _INDEX, directory / _LATER
    packages = read_packages(index)
    later = read_later(newer, index, packages)
    libraries, manuals = environment(), list(read_manuals())
    functions = read_functions(libraries)
    taught = Taught.ask(
        [
            *(package.english.short for package in (*packages, *later)),
            *(manual.purpose for manual in manuals if manual.language == "en"),
            *(function.purpose for function in (*functions.documented, *functions.private)),
        ]
    )
    counts: dict[str, dict[Side, int]] = {}
    for name, rows in chain(
        of_packages(packages),
        of_packages(later, named="later"),
        of_titles(packages),
        of_pieces(packages),
        of_manuals(manuals),
        of_functions(functions),
        of_docstrings(read_docstrings(libraries)),
        of_images(packages, functions.documented),
        of_pages(libraries[-1].public),
    ):
        counts[name] = {side: _write(directory / side, name, rows, side, taught) for side in SIDES}
    counts[_GRADED] = {}
    for side in SIDES:
        table = grade([p for p in packages if side_of(p.family) == side], taught)
        pq.write_table(table, directory / side / f"{_GRADED}.parquet", compression="zstd")
        counts[_GRADED][side] = len(table)
    manifest = {"index": release(index), "later": release(newer), "pairs": counts}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _write(folder: Path, name: str, rows: Sequence[Row], side: Side, taught: Taught) -> int:
    """One side of some pairs; how many there are."""
    some = [row for row in rows if side_of(row.family) == side]
    columns = {
        "query": pa.array(row.query for row in some),
        "positive": pa.array(row.positive for row in some),
        "family": pa.array(row.family for row in some),
    }
    english = [row.english for row in some if row.english is not None]
    if english:
        vectors_ND = taught.of(english)
        size = vectors_ND.shape[1]
        columns["teacher"] = pa.FixedSizeListArray.from_arrays(vectors_ND.ravel(), size)
    if any(row.shown is not None for row in some):
        columns["shown"] = pa.array((row.shown for row in some), pa.list_(pa.int32()))
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{name}.parquet", compression="zstd")
    return len(some)
