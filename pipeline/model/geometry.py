"""The sizes of a random checkpoint, checked before a byte is written.

Two are ready made: TINY, which has every feature of the real one in 1 MB, and FULL, the geometry of
the published jina-embeddings-v4. A geometry that no network could have is refused field by field,
since the library would refuse it much later and in its own words.
"""

from dataclasses import dataclass

from pipeline.errors import SpecError
from pipeline.model.new_tokenizer import SMALLEST_PADDED


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The sizes of a checkpoint; the vision tower's output always has the decoder's width."""

    hidden: int
    """Width of the decoder, and of a single vector."""
    layers: int
    """Decoder layers."""
    heads: int
    """Query heads of the decoder."""
    kv_heads: int
    """Key and value heads of the decoder."""
    intermediate: int
    """Width of the decoder's MLP."""
    vision_hidden: int
    """Width of the vision tower."""
    vision_depth: int
    """Blocks of the vision tower."""
    vision_heads: int
    """Attention heads of the vision tower."""
    vision_intermediate: int
    """Width of the vision tower's MLP."""
    full_attention_blocks: tuple[int, ...]
    """The vision blocks that look at the whole image; the others look at windows of 112 px."""
    rank: int
    """Rank r of every adapter."""
    alpha: int
    """An adapter is scaled by alpha / rank."""
    min_pixels: int
    """Smaller images are enlarged to this area."""
    max_pixels: int
    """Larger images are reduced to this area."""
    matryoshka_dims: tuple[int, ...]
    """The lengths to which a single vector may be cut, ascending; the last is `hidden`."""
    vocabulary: int
    """Rows of the padded embedding table (151936 is the real one), or 0 for no padding."""
    multi_vector_dim: int = 128
    """Width of one token's vector in a multi-vector."""

    def __post_init__(self) -> None:
        """Check each field.

        Raises:
            SpecError: a field does not fit; one sentence names it.
        """
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1 and name != "vocabulary":
                raise SpecError(f"geometry.{name}: {value} is not a size; expected 1 or more")
        self._check_divides("hidden", self.hidden, "heads", self.heads, 16)
        self._check_divides(
            "vision_hidden", self.vision_hidden, "vision_heads", self.vision_heads, 4
        )
        self._check_divides("heads", self.heads, "kv_heads", self.kv_heads, 1)
        dims, blocks = self.matryoshka_dims, self.full_attention_blocks
        if not dims or list(dims) != sorted(set(dims)) or dims[0] < 1 or dims[-1] != self.hidden:
            raise SpecError(
                f"geometry.matryoshka_dims: {dims} does not fit; expected ascending positive "
                f"lengths of which the last is hidden, {self.hidden}"
            )
        if list(blocks) != sorted(set(blocks)) or not set(blocks) <= set(range(self.vision_depth)):
            raise SpecError(
                f"geometry.full_attention_blocks: {blocks} does not fit; expected ascending block "
                f"numbers from 0 to {self.vision_depth - 1}"
            )
        if self.min_pixels > self.max_pixels:
            raise SpecError(
                f"geometry.min_pixels: {self.min_pixels} is too large; expected at most "
                f"max_pixels, {self.max_pixels}"
            )
        if self.vocabulary and self.vocabulary < SMALLEST_PADDED:
            raise SpecError(
                f"geometry.vocabulary: {self.vocabulary} is too small; expected 0 (no padding) or "
                f"at least {SMALLEST_PADDED}"
            )

    @staticmethod
    def _check_divides(name: str, size: int, by: str, parts: int, step: int) -> None:
        if size % (parts * step):
            raise SpecError(
                f"geometry.{name}: {size} does not fit {by} {parts}; expected {name} / {by} to be "
                + (f"a multiple of {step}" if step > 1 else "a whole number")
            )

    @property
    def head_dim(self) -> int:
        """Width of one decoder head."""
        return self.hidden // self.heads


def tiny_geometry(hidden: int = 64) -> Geometry:
    """A geometry with every feature of the real one; `hidden` is a multiple of 64."""
    return Geometry(
        hidden=hidden,
        layers=2,
        heads=4,
        kv_heads=2,
        intermediate=2 * hidden,
        vision_hidden=hidden // 2,
        vision_depth=4,
        vision_heads=2,
        vision_intermediate=3 * hidden // 4,
        full_attention_blocks=(1, 3),
        rank=8,
        alpha=8,
        min_pixels=3136,
        max_pixels=602112,
        matryoshka_dims=(hidden // 4, hidden // 2, hidden),
        vocabulary=0,
    )


TINY = tiny_geometry()
FULL = Geometry(
    hidden=2048,
    layers=36,
    heads=16,
    kv_heads=2,
    intermediate=11008,
    vision_hidden=1280,
    vision_depth=32,
    vision_heads=16,
    vision_intermediate=3420,
    full_attention_blocks=(7, 15, 23, 31),
    rank=32,
    alpha=32,
    min_pixels=3136,
    max_pixels=602112,
    matryoshka_dims=(128, 256, 512, 1024, 2048),
    vocabulary=151936,
)
