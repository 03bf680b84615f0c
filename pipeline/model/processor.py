"""Items to what the network reads: token ids, and uint8 pixels for an image. CPU only.

A text is its task's prefix plus itself; special tokens spelled out in user text stay literal text,
because a stray `<|vision_start|>` would change what the item is. An image is a fixed prompt with
one pad token for each merged patch. Texts are cut to `max_length` tokens, prefix included, and the
cut is recorded; images are bounded by their pixels and are never cut. What `max_length` tokens
cannot reach is cut off before it is tokenised, so that the longest text takes seconds.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from pipeline.errors import CheckpointError, Reason, RowError, SpecError
from pipeline.model.checkpoint import TOKENIZER, Settings
from pipeline.model.images import IMAGE_PIXELS, PixelBounds, Pixels, decode, resize, to_rgb
from pipeline.tasks import Task

MAX_LENGTH = 32768

_BEFORE_PADS = "<|im_start|>user\n<|vision_start|>"
_PAD = "<|image_pad|>"
_AFTER_PADS = "<|vision_end|>Describe the image.<|im_end|>\n"


@dataclass(frozen=True, kw_only=True)
class PreparedItem:
    """One item, ready for the network."""

    token_ids: NDArray[np.int32]
    """[tokens], the whole prompt."""
    pixels: Pixels | None
    """[height, width, 3] resized, for an image."""
    truncated: bool
    """Whether the text was cut to max_length."""

    def squares(self, pad: int) -> int:
        """How many merged patches it has, each of which is one token, the pad; of a text none."""
        return int((self.token_ids == pad).sum())


class Processor:
    """Prepares the items of one checkpoint; cheap to make, holds no weights."""

    def __init__(
        self,
        checkpoint: Settings,
        *,
        max_length: int | None = None,
        max_pixels: int | None = None,
        image_pixels: int = IMAGE_PIXELS,
    ) -> None:
        """Read the tokenizer and the pixel bounds.

        Args:
            checkpoint: its settings.
            max_length: tokens a text is cut to; None for the model's limit, 32768.
            max_pixels: bound of a resized image; None for the checkpoint's own.
            image_pixels: the largest image that is decoded.

        Raises:
            SpecError: max_pixels is below the checkpoint's min_pixels, or max_length below 1.
            CheckpointError: the tokenizer cannot be read or lacks a special token.
        """
        vision = checkpoint.config["vision_config"]
        self.patch_size = checkpoint.patch_size
        least, most = checkpoint.pixel_bounds
        self.bounds = PixelBounds(
            factor=self.patch_size * vision["spatial_merge_size"],
            least=least,
            most=most if max_pixels is None else max_pixels,
        )
        if max_length is not None and max_length < 1:
            raise SpecError(f"model.max_length: {max_length} is below 1")
        if self.bounds.most < least:
            raise SpecError(
                f"model.max_pixels: {max_pixels} is below the checkpoint's min_pixels, {least}"
            )
        self.max_length = min(MAX_LENGTH if max_length is None else max_length, MAX_LENGTH)
        self._image_pixels = image_pixels
        self._tokenizer = _read_tokenizer(checkpoint.directory / TOKENIZER)
        # in a vocabulary of bytes each character of a token stands for one
        longest_token = max(map(len, self._tokenizer.get_vocab()))
        self._most_bytes = self.max_length * longest_token
        self._before_pads = self._tokenizer.encode(_BEFORE_PADS).ids
        self._after_pads = self._tokenizer.encode(_AFTER_PADS).ids
        self.pad = checkpoint.config["image_token_id"]
        if self._tokenizer.token_to_id(_PAD) != self.pad:
            raise CheckpointError(
                f"{checkpoint.directory}: the tokenizer gives {_PAD} the id "
                f"{self._tokenizer.token_to_id(_PAD)}, config.json says {self.pad}"
            )
        # from here on, special tokens spelled in a text are plain text
        self._tokenizer.encode_special_tokens = True

    def text(self, text: str, task: Task) -> PreparedItem:
        """Prepare a text.

        Raises:
            RowError: it is empty, only white space, or not encodable as UTF-8.
        """
        if not text.strip():
            raise RowError(Reason.EMPTY_INPUT, "the text is empty or only white space")
        try:
            content = (task.prefix + text).encode()
        except UnicodeEncodeError as error:
            raise RowError(Reason.INVALID_UNICODE, f"the text is not Unicode: {error}") from error
        # a character that the cut goes through is dropped
        reachable = content[: self._most_bytes].decode(errors="ignore")
        ids = self._tokenizer.encode(reachable).ids
        return PreparedItem(
            token_ids=np.array(ids[: self.max_length], dtype=np.int32),
            pixels=None,
            truncated=len(ids) > self.max_length or len(content) > self._most_bytes,
        )

    def tokens_by_character(self, text: str, task: Task) -> NDArray[np.int32]:
        """Of each character of a text the id of the token that it is of, as `text` has them."""
        encoded = self._tokenizer.encode(task.prefix + text)
        places = np.zeros(len(task.prefix) + len(text), np.int32)
        for token, (first, stop) in zip(encoded.ids, encoded.offsets, strict=True):
            places[first:stop] = token
        return places[len(task.prefix) :]

    def image(self, image: bytes | Image.Image) -> PreparedItem:
        """Prepare an encoded or decoded image.

        Raises:
            RowError: it cannot be decoded, is too large, or too long and thin.
        """
        most = self._image_pixels
        pixels = decode(image, most) if isinstance(image, bytes) else to_rgb(image, most)
        return self.resized(resize(pixels, self.bounds))

    def resized(self, pixels: Pixels) -> PreparedItem:
        """Prepare an image that has its final size."""
        pads = pixels.shape[0] * pixels.shape[1] // self.bounds.factor**2
        ids = [*self._before_pads, *[self.pad] * pads, *self._after_pads]
        return PreparedItem(token_ids=np.array(ids, dtype=np.int32), pixels=pixels, truncated=False)


def random_text(checkpoint: Settings, tokens: int, generator: np.random.Generator) -> PreparedItem:
    """A text of random token ids: the network's speed does not depend on which they are."""
    known = min(checkpoint.text_config["vocab_size"], 1000)
    ids = generator.integers(known, size=tokens, dtype=np.int32)
    return PreparedItem(token_ids=ids, pixels=None, truncated=False)


def _read_tokenizer(file: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more exact
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
