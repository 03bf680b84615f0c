"""The trained tokenizer: Qwen's construction, official special tokens, no text lost."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import Qwen2Tokenizer

from pipeline.model.geometry import TINY
from pipeline.model.new_settings import model_config
from pipeline.model.new_tokenizer import (
    SPECIAL_TOKENS,
    special_ids,
    train_tokenizer,
    write_tokenizer,
)

IDS = special_ids(TINY.vocabulary)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(directory, train_tokenizer(TINY.vocabulary))
    return directory


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Query: The quick brown fox, it's 42!\r\n\n  trailing  ",
        "caf\u00e9 \u65e5\u672c\u8a9e \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \U0001f9ea\u200d",
        "def f(x):\n\treturn x  # \u03bb\x00",
    ],
)
def test_the_tokenizer_gives_every_text_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert max(ids, default=0) < IDS["<|endoftext|>"]


def test_the_tokenizer_has_learnt_merges_and_normalises_to_nfc(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("the function returns an object").ids) <= 8
    assert tokenizer.decode(tokenizer.encode("e\u0301").ids) == "\u00e9"


def test_the_tokenizer_splits_as_qwen2_does(tokenizer: Tokenizer) -> None:
    pieces = tokenizer.pre_tokenizer.pre_tokenize_str("IT'SO pay 42$!\r\n\n  if\t so ")
    assert [text for text, _ in pieces] == [
        *("IT", "'S", "O", "\u0120pay", "\u0120", "4", "2", "$!\u010d\u010a\u010a"),
        *("\u0120", "\u0120if", "\u0109", "\u0120so", "\u0120"),
    ]


def test_special_tokens_have_the_ids_that_the_config_names(tokenizer: Tokenizer) -> None:
    config = model_config(TINY)
    assert tokenizer.encode("".join(SPECIAL_TOKENS)).ids == list(IDS.values())
    assert tokenizer.get_vocab_size() == config["vocab_size"] == 2270
    assert tokenizer.token_to_id("<|vision_start|>") == config["vision_start_token_id"]
    assert tokenizer.token_to_id("<|vision_end|>") == config["vision_end_token_id"]
    assert tokenizer.token_to_id("<|vision_pad|>") == config["vision_token_id"]
    assert tokenizer.token_to_id("<|image_pad|>") == config["image_token_id"]
    assert tokenizer.token_to_id("<|endoftext|>") == config["bos_token_id"]
    assert tokenizer.token_to_id("<|im_end|>") == config["eos_token_id"]


def test_fillers_move_the_special_tokens_and_nothing_else() -> None:
    tiny, full = train_tokenizer(0), train_tokenizer(151936)
    text = "def f(x): return filler_3000 \u65e5\u672c"
    assert full.encode(text).ids == tiny.encode(text).ids
    assert full.token_to_id("<|endoftext|>") == 151643
    assert full.token_to_id("<|video_pad|>") == 151656


def test_the_stock_tokenizer_class_agrees(directory: Path, tokenizer: Tokenizer) -> None:
    stock = Qwen2Tokenizer.from_pretrained(directory)
    text = "<|im_start|>user\nDescribe the image.<|im_end|>"
    assert stock(text)["input_ids"] == tokenizer.encode(text).ids
    assert stock.pad_token_id == IDS["<|endoftext|>"]
