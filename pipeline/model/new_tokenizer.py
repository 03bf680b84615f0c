"""A small tokenizer of Qwen's construction, trained here so that nothing is downloaded.

It is the byte-level BPE that the real checkpoint uses (NFC, Qwen2's splitting rule, 256 bytes, then
merges, then the special tokens in the official order), with 2,000 merges learnt from Python's own
help texts instead of 151,387 learnt from the web. Every text can be encoded; ordinary English gets
about 2.7 characters per token. Training takes 0.2 s, and its result depends on nothing but the
versions of `tokenizers` and of Python, whose help texts differ a little from release to release.

For a checkpoint of the real size the vocabulary is filled up with entries that no merge leads to:
then the special tokens have their official ids, and no text ever yields a filler.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from pydoc_data import topics

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""In the official order; the first one's id is the number of ordinary entries."""

LEARNT_ENTRIES = 256 + 2000
"""The bytes and the merges."""

ROWS_FROM_FIRST_SPECIAL = 151936 - 151643
"""In a padded vocabulary: rows from the first special token to the end, as in the real one."""

SMALLEST_PADDED = LEARNT_ENTRIES + ROWS_FROM_FIRST_SPECIAL
"""The smallest padded vocabulary that has room for what is learnt."""

_TRAINING_CHARACTERS = 300_000
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def vocabulary_rows(vocabulary: int) -> int:
    """Rows of the embedding table; `vocabulary` is 0 (no padding) or a padded size."""
    return vocabulary or LEARNT_ENTRIES + len(SPECIAL_TOKENS)


def special_ids(vocabulary: int) -> dict[str, int]:
    """The id of each special token; `vocabulary` is 0 (no padding) or a padded size."""
    first = vocabulary - ROWS_FROM_FIRST_SPECIAL if vocabulary else LEARNT_ENTRIES
    return {token: first + i for i, token in enumerate(SPECIAL_TOKENS)}


def train_tokenizer(vocabulary: int, texts: Iterable[str] | None = None) -> Tokenizer:
    """The tokenizer, with its special tokens at the ids that `special_ids` gives.

    Args:
        vocabulary: rows of the embedding table, or 0 for no padding.
        texts: to learn from, as many merges as the vocabulary has room for; by default Python's
            help texts, and 2,000.
    """
    first_special = special_ids(vocabulary)[SPECIAL_TOKENS[0]]
    learnt = (
        _learn(_help_texts(), LEARNT_ENTRIES) if texts is None else _learn(texts, first_special)
    )
    bpe = json.loads(learnt.to_str())["model"]
    entries: dict[str, int] = bpe["vocab"]
    entries |= {f"filler_{i}": i for i in range(len(entries), first_special)}
    merges = [(left, right) for left, right in bpe["merges"]]
    tokenizer = _around(models.BPE(vocab=entries, merges=merges))
    tokenizer.post_processor = processors.ByteLevel(
        add_prefix_space=False, trim_offsets=False, use_regex=False
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def write_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    tokenizer.save(str(directory / "tokenizer.json"))
    ids = {str(tokenizer.token_to_id(token)): token for token in SPECIAL_TOKENS}
    flags = {
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            number: {"content": token, **flags} for number, token in ids.items()
        },
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _learn(texts: Iterable[str], entries: int) -> Tokenizer:
    """Learn the merges; as many entries as are asked for, bytes included, where texts have them."""
    tokenizer = _around(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _help_texts() -> list[str]:
    text = "\n".join(topics.topics[key] for key in sorted(topics.topics))
    return text[:_TRAINING_CHARACTERS].splitlines(keepends=True)


def _around(model: models.Model) -> Tokenizer:
    """Qwen2's normalising, splitting and decoding around a BPE model."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
