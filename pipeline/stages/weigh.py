"""Weigh: how much work some rows would be for the model, without the model."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What some rows ask for."""

    rows: int = 0
    """Source rows."""
    items: Counter[str] = field(default_factory=Counter)
    """Embeddings, by modality."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Tokens of the decoder, by modality."""
    patches: int = 0
    """Image patches of the vision tower."""
    aside: int = 0
    """Items that would be set aside before the model sees them."""

    def times(self, factor: float) -> "Weight":
        """So many times as much, rounded."""
        return Weight(
            rows=round(self.rows * factor),
            items=Counter({name: round(n * factor) for name, n in self.items.items()}),
            tokens=Counter({name: round(n * factor) for name, n in self.tokens.items()}),
            patches=round(self.patches * factor),
            aside=round(self.aside * factor),
        )


def weigh(prepared: pa.Table, patch: int) -> Weight:
    """The weight of one unit.

    Args:
        prepared: a table of `prepared_schema`.
        patch: side of an image patch, in pixels.
    """
    well = prepared.filter(pc.is_null(prepared["reason"]))
    found = Weight(
        rows=len(prepared["row"].unique()),
        items=Counter(well["modality"].to_pylist()),
        patches=sum(
            (height // patch) * (width // patch)
            for height, width in zip(
                well["height"].to_pylist(), well["width"].to_pylist(), strict=True
            )
            if height is not None
        ),
        aside=prepared.num_rows - well.num_rows,
    )
    lengths = pc.list_value_length(well["token_ids"]).to_pylist()
    for modality, length in zip(well["modality"].to_pylist(), lengths, strict=True):
        found.tokens[modality] += length
    return found


def total(weights: Iterable[Weight]) -> Weight:
    """The sum."""
    found = list(weights)
    return Weight(
        rows=sum(weight.rows for weight in found),
        items=sum((weight.items for weight in found), Counter()),
        tokens=sum((weight.tokens for weight in found), Counter()),
        patches=sum(weight.patches for weight in found),
        aside=sum(weight.aside for weight in found),
    )
