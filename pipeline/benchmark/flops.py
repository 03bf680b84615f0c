"""Floating-point operations of a forward pass, for the share of the ceiling that is reached.

A product of [a, b] and [b, c] counts 2abc. Counted are the matrix products and attention; norms,
activations and rotations are not, by convention (Kaplan et al. 2020, arXiv 2001.08361, appendix B;
Chowdhery et al. 2022, arXiv 2204.02311, appendix B). Causal attention counts half of the square.
What Nightjar does not compute (padding, the output head) is not counted, so the share is of useful
work only. For the published geometry: 5.55 GFLOP for each token, 1.28 GFLOP for each image patch,
attention on top.
"""

from collections.abc import Sequence

from pipeline.model.checkpoint import Checkpoint
from pipeline.model.images import Pixels
from pipeline.model.processor import PreparedItem
from pipeline.model.vision import PatchGeometry


class FlopCounter:
    """Counts for one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, patches: PatchGeometry) -> None:
        text, vision = checkpoint.text_config, checkpoint.config["vision_config"]
        self._hidden, self._layers = text["hidden_size"], text["num_hidden_layers"]
        shared = text["num_key_value_heads"] / text["num_attention_heads"]
        # query and output, keys and values, and the three matrices of the MLP
        self._per_layer = (
            2 * self._hidden * ((2 + 2 * shared) * self._hidden + 3 * text["intermediate_size"])
        )
        self._width, self._blocks = vision["hidden_size"], vision["depth"]
        self._whole = len(vision.get("fullatt_block_indexes", (7, 15, 23, 31)))
        self._per_block = 2 * self._width * (4 * self._width + 3 * vision["intermediate_size"])
        self._projector = 2 * self._hidden * checkpoint.multi_vector_dim
        self._per_patch = 2 * self._width * 3 * patches.patch**2
        merged = self._width * patches.merge**2
        self._per_merged = 2 * merged * (merged + self._hidden)
        self._patches = patches

    def of(self, items: Sequence[PreparedItem], *, multi: bool) -> float:
        """Operations of embedding some items, each attending to itself only."""
        return sum(
            self._text(len(item.token_ids), multi)
            + (0.0 if item.pixels is None else self._image(item.pixels))
            for item in items
        )

    def _text(self, tokens: int, multi: bool) -> float:
        """The decoder, and the projector: S tokens attend to S / 2 others on average."""
        attention = 2 * tokens * tokens * self._hidden
        projected = self._projector * tokens if multi else 0
        return float(self._layers * (tokens * self._per_layer + attention) + projected)

    def _image(self, pixels: Pixels) -> float:
        """The vision tower: windows attend within themselves, a few blocks over all patches."""
        layout = self._patches.lay_out([pixels])
        patches = len(layout.positions_N2)
        pairs = (self._blocks - self._whole) * float((layout.window_lengths**2).sum())
        pairs += self._whole * float(patches) ** 2
        return float(
            patches * (self._per_patch + self._blocks * self._per_block)
            + len(layout.windows_M) * self._per_merged
            + 4 * pairs * self._width
        )
