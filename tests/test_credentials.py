"""What is blotted out, and what is not; how the file of a secret is found."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import credentials
from pipeline.credentials import redact, resolve
from pipeline.errors import SpecError


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    credentials._known.clear()


def _resolved(monkeypatch: pytest.MonkeyPatch, *secrets: str) -> None:
    for secret in secrets:
        monkeypatch.setenv("NIGHTJAR_SECRET", secret)
        resolve("env:NIGHTJAR_SECRET")


@pytest.mark.parametrize("order", [1, -1])
def test_a_secret_that_another_is_part_of_is_blotted_out_whole(
    monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    _resolved(monkeypatch, *["canary", "canary of many"][::order])
    assert redact("canary of many, canary") == "***, ***"


def test_what_is_too_short_to_be_a_secret_blots_out_no_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _resolved(monkeypatch, "a", "the", "four")
    assert redact("the fourth is a banana") == "the ***th is a banana"


def test_the_file_of_a_secret_may_be_below_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "secret").write_text("canary\n")
    assert resolve("file:~/secret") == "canary"


def test_a_secret_that_is_no_text_is_named_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"canary\xff")
    with pytest.raises(SpecError) as caught:
        resolve(f"file:{path}")
    assert str(caught.value) == f"storage: file:{path} cannot be read: it is not text"
