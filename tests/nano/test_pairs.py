"""What becomes a pair, and that a family is on one side."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.corpus.stdlib import Library
from pipeline.nano import pairs
from pipeline.nano.debian import Description, Package
from pipeline.nano.functions import Docstring, Function, Functions
from pipeline.nano.graded import grade
from pipeline.nano.pages import head, line
from pipeline.nano.pairs import HELD_OUT, SIDES, side_of, write_pairs
from pipeline.nano.rows import (
    of_docstrings,
    of_functions,
    of_images,
    of_packages,
    of_pieces,
    of_titles,
)
from pipeline.nano.teacher import Taught


def test_packages_are_asked_for_in_and_across_languages(packages: list[Package]) -> None:
    found = {name: [(r.query, r.positive) for r in rows] for name, rows in of_packages(packages)}
    assert ("pack files", "Makes them small.") in found["packages.en-en"]
    assert len(found["packages.en-en"]) == 3
    assert found["packages.de-de"] == [("Schach spielen", "Ein Brett für zwei.")]
    assert found["packages.en-de"] == [("play chess", "Ein Brett für zwei.")]
    ((query, answer),) = found["packages.de-en"]
    assert query == "Schach spielen"
    assert str(answer).startswith("A board with two players")
    # what the document says of itself in a line is no part of it
    assert not any(query in str(answer) for query, answer in found["packages.en-en"])


def test_a_piece_is_asked_of_the_rest_and_of_the_whole_in_english(packages: list[Package]) -> None:
    long = "Ein Brett für zwei Spieler. Dazu eine Uhr, die von selbst läuft."
    said = Description(short="chess", long="A board for two players. A clock that runs by itself.")
    german = replace(
        packages[0], english=said, translated={"de": Description(short="Schach", long=long)}
    )
    found = dict(of_pieces([german]))
    (piece,) = found["pieces.de-de"]
    assert piece.query in long
    assert piece.positive in long
    assert piece.query not in str(piece.positive)
    (across,) = found["pieces.de-en"]
    assert across.query in long
    assert across.positive == german.english.long
    (english,) = found["pieces.en-en"]
    assert english.query in german.english.long
    assert english.english is None


def test_titles_are_asked_for_by_their_translations(packages: list[Package]) -> None:
    (row,) = dict(of_titles(packages))["titles.de-en"]
    assert (row.query, row.positive, row.english) == ("Schach spielen", "play chess", "play chess")


def test_the_teacher_is_asked_of_sentences_and_not_of_names() -> None:
    one, two, three = (
        Function(name=f"json.f{n}", purpose=f"do thing {n}", code=f"code {n}") for n in range(3)
    )
    found = dict(of_functions(Functions(documented=[one], private=[two], named=[three])))
    assert [(name, row.query, row.positive, row.english) for name, (row,) in found.items()] == [
        ("functions", "do thing 0", "code 0", "do thing 0"),
        ("functions.private", "do thing 1", "code 1", "do thing 1"),
        ("functions.named", "do thing 2", "code 2", None),
    ]


def test_a_docstring_answers_its_first_sentence() -> None:
    said = Docstring(first="Read it.", rest="word " * 1_000, family="json")
    ((_, (row,)),) = of_docstrings([said])
    assert (row.query, row.family, row.english) == ("Read it.", "json", None)
    assert said.rest.startswith(str(row.positive)) and len(row.positive) == 1_200


def test_images_show_what_is_asked_and_tell_of_every_square(packages: list[Package]) -> None:
    function = Function(name="json.decoder.JSONDecoder", purpose="read JSON", code="pass")
    found = dict(of_images(packages, [function]))
    *titles, name = [row.query for row in found["lines"]]
    assert all(title in p.english.short for title, p in zip(titles, packages, strict=True))
    assert function.name.endswith(name)
    assert [row.query for row in found["heads"]] == [p.english.short for p in packages]
    for row in (*found["lines"], *found["heads"]):
        assert isinstance(row.positive, bytes)
        assert row.shown is not None
        image = Image.open(io.BytesIO(row.positive))
        assert image.width % 28 == image.height % 28 == 0
        assert len(row.shown) == image.width * image.height // 28**2
        assert np.asarray(image.convert("L")).std() > 5


words = st.lists(
    st.text(st.characters(categories=["Ll", "Lu"], max_codepoint=0x17F), min_size=1, max_size=50),
    min_size=1,
    max_size=12,
)


@given(words, st.integers(0, 1000))
def test_a_line_is_a_piece_of_its_title_and_lies_within_its_squares(
    title: list[str], seed: int
) -> None:
    drawn = line(title, " ", np.random.default_rng(seed))
    assert drawn.text in " ".join(title)
    ink = _ink(drawn.png)
    # nothing is cut off at the right edge
    assert not ink[:, -2:].any()
    _demand_ink_where_it_is_told(ink, drawn.shown, drawn.text)
    places = [place for place in drawn.shown if place is not None and place >= 0]
    assert places == sorted(places)


@given(words)
def test_a_head_tells_where_each_letter_of_its_title_is(title: list[str]) -> None:
    drawn = head(_named("  ".join(title)))
    rows = [drawn.shown[19 * row : 19 * row + 19] for row in range(8)]
    ink = _ink(drawn.png)
    told = [place for row in rows for place in row if place is not None and place >= 0]
    assert told == sorted(told)
    assert told[0] <= 2, "its first letters"
    for number, row in enumerate(rows):
        if row != (None,) * 19:
            _demand_ink_where_it_is_told(ink[28 * number : 28 * number + 28], row, drawn.text)


def _ink(png: bytes) -> NDArray[np.bool_]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L")) < 160


def _demand_ink_where_it_is_told(
    ink: NDArray[np.bool_], shown: tuple[int | None, ...], text: str
) -> None:
    """A square has ink if it shows a letter, and none if it shows paper."""
    for column, place in enumerate(shown):
        square = ink[:, 28 * column : 28 * column + 28]
        if place == -1:
            # a letter may reach a pixel beyond its own width
            assert not square[:, 2:-2].any()
        elif place is not None:
            assert square.any()
            assert not text[place].isspace()


@given(st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_a_family_is_on_one_side_whatever_else_there_is(families: list[str]) -> None:
    assert [side_of(family) for family in families] == [side_of(family) for family in families]
    assert {side_of(family) for family in families} <= set(SIDES)


def test_about_the_share_of_all_families_is_held_out() -> None:
    held = [side_of(f"family {number}") == "held-out" for number in range(5_000)]
    assert abs(np.mean(held) - HELD_OUT) < 0.02


def test_grades_are_the_teachers_cosines(packages: list[Package], taught: Taught) -> None:
    many = [
        Package(
            name=f"{package.name}{number}",
            family=package.family,
            english=package.english,
            translated={},
        )
        for number in range(3)
        for package in packages
    ]
    sentences = [package.english.short for package in packages]
    # as many sentences as are looked at for the nearest, by other spellings
    numbers = dict(taught.numbers)
    more = np.random.default_rng(1).standard_normal((40, 8))
    more /= np.linalg.norm(more, axis=1, keepdims=True)
    vectors = np.concatenate([taught.vectors_ND, more.astype(np.float16)])
    for number in range(40):
        numbers[f"sentence {number}"] = len(sentences) + number
        many.append(_named(f"sentence {number}"))
    known = Taught(numbers=numbers, vectors_ND=vectors)
    rows = grade(many, known).to_pylist()
    assert len(rows) >= 30
    for row in rows:
        one, other = known.of([row["query"], row["positive"]]).astype(np.float32)
        assert np.isclose(row["grade"], one @ other, atol=2e-3)
        assert row["query"] != row["positive"]


def _named(short: str) -> Package:
    description = Description(short=short, long=f"{short}, at length")
    return Package(name=short, family=short, english=description, translated={})


def test_no_family_is_on_both_sides_of_what_is_written(
    tmp_path: Path, packages: list[Package], taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [*packages, *(_named(f"sentence {number}") for number in range(200))]
    shorts = list(dict.fromkeys([*(package.english.short for package in many), "new"]))
    vectors = np.random.default_rng(0).standard_normal((len(shorts), 8)).astype(np.float16)
    known = Taught(numbers={s: n for n, s in enumerate(shorts)}, vectors_ND=vectors)
    monkeypatch.setattr(pairs, "read_packages", lambda lists: many)
    monkeypatch.setattr(pairs, "read_later", lambda later, index, packages: [_named("new")])
    monkeypatch.setattr(pairs, "environment", lambda: [Library(modules=(), topics=())])
    monkeypatch.setattr(pairs, "read_manuals", list)
    monkeypatch.setattr(pairs, "release", lambda lists: "an index")
    monkeypatch.setattr(pairs.Taught, "ask", lambda sentences: known)
    write_pairs(tmp_path)
    families = {}
    for side in SIDES:
        files = sorted((tmp_path / side).glob("*.parquet"))
        assert {
            "packages.en-en.parquet",
            "later.en-en.parquet",
            "lines.parquet",
            "graded.parquet",
        } <= {file.name for file in files}
        families[side] = {
            family
            for file in files
            for family in pq.read_table(file, columns=["family"])["family"].to_pylist()
        }
    assert families["train"] and families["held-out"]
    assert families["train"].isdisjoint(families["held-out"])
