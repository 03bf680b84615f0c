"""nano as it is shipped: what it is, that it understands, and that its card tells the truth."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.model_card import newest, told
from jobs.cli import main
from pipeline.corpus.sheet import BODY, TITLE, Sheet
from pipeline.index.scoring import maxsim
from pipeline.model.checkpoint import open_checkpoint
from pipeline.model.embedder import Embedder
from pipeline.nano.shipped import CHECKPOINT, megabytes

Captured = pytest.CaptureFixture[str]

_DOCUMENTS = (
    "A program that shows the weather forecast for your city.",
    "This library reads and writes compressed archives of files.",
    "Play chess against the computer, with a board in three dimensions.",
    "A server that stores mail and gives it to clients over IMAP.",
    "Tools to edit photographs: crop, rotate and change the colours.",
)
_QUESTIONS = {
    "chess game": 2,
    "Schachspiel": 2,
    "jeu d'échecs": 2,
    "チェスゲーム": 2,
    "Bildbearbeitung": 4,
    "serveur de courrier": 3,
    "compression library": 1,
}
_CODE = (
    "def read(path):\n    with open(path) as file:\n        return json.load(file)",
    "def shuffle(x):\n    for i in reversed(range(1, len(x))):\n"
    "        j = randbelow(i + 1)\n        x[i], x[j] = x[j], x[i]",
    "def connect(host, port):\n    sock = socket.socket()\n    sock.connect((host, port))\n"
    "    return sock",
)
_ASKED_OF_CODE = {
    "Load a JSON file.": 0,
    "Put a list in random order.": 1,
    "Open a connection to a server.": 2,
}


def test_it_is_small_and_of_the_official_layout(capsys: Captured, tmp_path: Path) -> None:
    assert megabytes() < 30
    assert main(["checkpoint", "nano", str(tmp_path / "nano")]) == 0
    assert "a trained checkpoint of " in capsys.readouterr().out
    assert main(["checkpoint", "verify", str(tmp_path / "nano")]) == 0
    told = capsys.readouterr().out
    assert "retrieval, text-matching, code" in told
    assert "all there, none unexpected" in told
    assert main(["checkpoint", "nano", str(tmp_path / "nano")]) == 2
    assert "is not an empty directory; name a new one for nano" in capsys.readouterr().err


def _sides(adapter: str) -> tuple[Embedder, Embedder]:
    """What embeds questions, and what embeds what answers them."""
    query, passage = (
        Embedder.load(CHECKPOINT, task=f"{adapter}.{side}", device="cpu", token_budget=4096)
        for side in ("query", "passage")
    )
    return query, passage


def _found(adapter: str, questions: list[str], documents: tuple[str, ...]) -> list[int]:
    query, passage = _sides(adapter)
    scores = query.embed(questions).single @ passage.embed(documents).single.T
    return [int(number) for number in scores.argmax(axis=1)]


def test_it_finds_what_was_meant_in_four_languages() -> None:
    assert _found("retrieval", list(_QUESTIONS), _DOCUMENTS) == list(_QUESTIONS.values())


def test_it_finds_functions_by_what_they_do() -> None:
    assert _found("code", list(_ASKED_OF_CODE), _CODE) == list(_ASKED_OF_CODE.values())


_TITLES = {
    "Chess Game": "game of chess",
    "Compressed Archives": "archives that are compressed",
    "Random Numbers": "random numbers",
    "Mail Server": "server for mail",
    "Image Viewer": "image viewer",
}


def test_it_finds_the_image_of_a_page_by_its_title() -> None:
    pages = []
    for number, title in enumerate(_TITLES):
        sheet = Sheet.of_book("A book of many things", "chapter", number)
        sheet.write(title, TITLE)
        sheet.write("What is said below is much the same everywhere. " * 5, BODY)
        pages.append(sheet.image())
    query, passage = _sides("retrieval")
    queries = query.embed(list(_TITLES.values()), multi=True).multi
    answers = passage.embed(pages, multi=True).multi
    assert queries is not None and answers is not None
    vectors_VD, lengths_N = np.concatenate(answers), np.array([len(each) for each in answers])
    found = [int(maxsim(query_TD, vectors_VD, lengths_N).argmax()) for query_TD in queries]
    assert found == list(range(len(_TITLES)))


def test_the_same_in_another_language_is_closer_than_anything_else() -> None:
    embedder = Embedder.load(CHECKPOINT, task="text-matching", device="cpu", token_budget=4096)
    english = ["web browser", "image viewer", "text editor", "music player"]
    german = ["Webbrowser", "Bildbetrachter", "Texteditor", "Musikspieler"]
    scores = embedder.embed(english).single @ embedder.embed(german).single.T
    assert np.array_equal(scores.argmax(axis=1), np.arange(4))


def test_the_card_says_what_was_measured_of_these_weights() -> None:
    card = (CHECKPOINT / "README.md").read_text()
    record = json.loads(newest().read_text())
    assert record["fingerprint"] == open_checkpoint(CHECKPOINT).fingerprint
    assert told(card, record) == card
    record["found"][0]["ndcg"]["nano, multi"]["mean"] += 0.01
    assert told(card, record) != card
