"""What is put before the network: prompts token for token, cuts that are told, and refusals."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer

from pipeline.errors import CheckpointError, Reason, RowError, SpecError
from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.model.geometry import TINY
from pipeline.model.new_tokenizer import SPECIAL_TOKENS, special_ids
from pipeline.model.processor import MAX_LENGTH, Processor
from pipeline.model.random_checkpoint import write_random_checkpoint
from pipeline.tasks import TASKS
from tests.model.parity_items import TEXTS, encoded, picture

QUERY = TASKS["retrieval.query"]
IDS = special_ids(TINY.vocabulary)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    directory = tmp_path_factory.mktemp("processor") / "tiny"
    write_random_checkpoint(directory, TINY)
    return open_checkpoint(directory)


@pytest.fixture(scope="module")
def processor(checkpoint: Checkpoint) -> Processor:
    return Processor(checkpoint)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint.directory / "tokenizer.json"))


# Texts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\t\r\n", "\u00a0\u2028\u3000\x85"])
@pytest.mark.fault("text.empty")
def test_an_empty_text_is_refused_though_its_prompt_would_not_be(
    processor: Processor, text: str
) -> None:
    with pytest.raises(RowError) as refused:
        processor.text(text, QUERY)
    assert refused.value.reason == Reason.EMPTY_INPUT


@pytest.mark.parametrize("text", ["\ud800", "half a pair: \udc80.", "\udc00\ud800"])
@pytest.mark.fault("text.lone_surrogate")
def test_a_lone_surrogate_is_refused(processor: Processor, text: str) -> None:
    with pytest.raises(RowError) as refused:
        processor.text(text, QUERY)
    assert refused.value.reason == Reason.INVALID_UNICODE


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_special_token_spelt_in_a_text_is_text(
    processor: Processor, tokenizer: Tokenizer, token: str
) -> None:
    for text in (token, f"before {token} after", token * 3):
        ids = processor.text(text, QUERY).token_ids
        assert max(ids) < min(IDS.values())
        assert tokenizer.decode(ids.tolist()) == f"Query: {text}"


@pytest.mark.parametrize(
    ("task", "prefix"),
    [
        ("retrieval.query", "Query: "),
        ("retrieval.passage", "Passage: "),
        ("code.query", "Query: "),
        ("code.passage", "Passage: "),
        ("text-matching", "Query: "),
    ],
)
def test_each_task_puts_its_prefix_and_nothing_else(
    processor: Processor, tokenizer: Tokenizer, task: str, prefix: str
) -> None:
    for text in ("one", "  two\n", TEXTS["code"], TEXTS["prefix typed by the user"]):
        item = processor.text(text, TASKS[task])
        assert item.token_ids.tolist() == tokenizer.encode(prefix + text).ids
        assert (item.token_ids.dtype, item.pixels, item.truncated) == (np.int32, None, False)


@pytest.mark.fault("text.too_long")
def test_exactly_max_length_is_whole_and_one_more_is_cut_and_told(checkpoint: Checkpoint) -> None:
    whole = Processor(checkpoint).text(TEXTS["long"], QUERY).token_ids
    for cut, truncated in ((1, True), (0, False), (-1, False)):
        item = Processor(checkpoint, max_length=len(whole) - cut).text(TEXTS["long"], QUERY)
        np.testing.assert_array_equal(item.token_ids, whole[: len(whole) - max(cut, 0)])
        assert item.truncated is truncated


def test_the_prefix_counts_towards_max_length(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    prefix = tokenizer.encode("Query:").ids
    item = Processor(checkpoint, max_length=len(prefix)).text("a text", QUERY)
    assert (item.token_ids.tolist(), item.truncated) == (prefix, True)


@pytest.mark.parametrize("asked", [None, MAX_LENGTH, MAX_LENGTH + 1])
def test_no_text_is_longer_than_the_model_reads(checkpoint: Checkpoint, asked: int | None) -> None:
    processor = Processor(checkpoint, max_length=asked)
    words = " a" * (MAX_LENGTH + 10)
    item = processor.text(words, QUERY)
    assert (len(item.token_ids), item.truncated) == (32768, True)


@pytest.mark.fault("text.one_word")
def test_what_no_kept_token_can_reach_is_not_tokenised(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Processor(checkpoint, max_length=5)
    tokenizer, seen = short._tokenizer, []

    class Listening:
        def encode(self, text: str) -> object:
            seen.append(text)
            return tokenizer.encode(text)

    monkeypatch.setattr(short, "_tokenizer", Listening())
    longest = max(map(len, tokenizer.get_vocab()))
    for text in ("w" * 10_000, "é" * 10_000, "€" * 10_000, "word " * 10_000, "-" * 10_000):
        item = short.text(text, TASKS["code.query"])
        assert item.truncated
        assert len(item.token_ids) == 5
        assert 5 * longest - 3 <= len(seen[-1].encode()) <= 5 * longest
        whole = tokenizer.encode(TASKS["code.query"].prefix + text).ids
        assert item.token_ids.tolist() == whole[:5]
    # however few tokens are left of it, what was cut is said to be
    monkeypatch.setattr(Listening, "encode", lambda *_: SimpleNamespace(ids=[1, 2]))
    assert short.text("w" * 10_000, TASKS["code.query"]).truncated
    assert not short.text("w", TASKS["code.query"]).truncated


# Images -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "decoded"])
@pytest.mark.parametrize(
    ("width", "height", "pads"), [(112, 84, 12), (1, 1, 4), (1, 200, 29), (1000, 1000, 729)]
)
def test_an_image_is_its_prompt_with_one_pad_for_each_merged_patch(
    processor: Processor, tokenizer: Tokenizer, width: int, height: int, pads: int, as_bytes: bool
) -> None:
    image = picture(width, height)
    item = processor.image(encoded(image, "PNG") if as_bytes else image)
    prompt = (
        "<|im_start|>user\n<|vision_start|>"
        + "<|image_pad|>" * pads
        + "<|vision_end|>Describe the image.<|im_end|>\n"
    )
    assert item.token_ids.tolist() == tokenizer.encode(prompt).ids
    assert item.pixels is not None
    assert item.pixels.shape[0] * item.pixels.shape[1] == pads * 28 * 28
    assert (item.pixels.dtype, item.token_ids.dtype, item.truncated) == (np.uint8, np.int32, False)


def test_an_image_is_never_cut(checkpoint: Checkpoint) -> None:
    item = Processor(checkpoint, max_length=5).image(picture(112, 84))
    assert len(item.token_ids) > 5
    assert not item.truncated


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html></html>", Reason.NOT_AN_IMAGE),
        (encoded(picture(40, 30), "JPEG")[:-100], Reason.IMAGE_TRUNCATED),
        (encoded(picture(201, 1), "PNG"), Reason.IMAGE_ASPECT_RATIO),
    ],
)
def test_an_unfit_image_is_refused_with_its_reason(
    processor: Processor, data: bytes, reason: Reason
) -> None:
    with pytest.raises(RowError) as refused:
        processor.image(data)
    assert refused.value.reason == reason


# Settings ---------------------------------------------------------------------------------------


def test_max_pixels_replaces_the_checkpoints_and_may_not_be_under_its_least(
    checkpoint: Checkpoint,
) -> None:
    assert Processor(checkpoint).bounds.most == 602112
    assert Processor(checkpoint, max_pixels=3136).bounds.most == 3136
    with pytest.raises(SpecError, match=r"^model\.max_pixels: 3135 is below .* 3136$"):
        Processor(checkpoint, max_pixels=3135)


def test_a_tokenizer_of_another_model_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    edited = Path(shutil.copytree(checkpoint.directory, tmp_path / "edited"))
    config = json.loads((edited / "config.json").read_text())
    config["image_token_id"] -= 1
    (edited / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"<\|image_pad\|> the id \d+, config\.json says"):
        Processor(open_checkpoint(edited))
