"""A geometry that no network could have is refused, in one sentence that names the field."""

import dataclasses
from typing import Any

import pytest

from pipeline.errors import SpecError
from pipeline.model.geometry import TINY, tiny_geometry


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 8}, "geometry.hidden: 64 does not fit heads 8; .* a multiple of 16"),
        ({"vision_heads": 16}, "geometry.vision_hidden: 32 .* a multiple of 4"),
        ({"kv_heads": 3}, "geometry.heads: 4 does not fit kv_heads 3; .* a whole number"),
        ({"matryoshka_dims": (16, 128)}, r"geometry.matryoshka_dims: \(16, 128\) .* hidden, 64"),
        ({"matryoshka_dims": (16, 32)}, "geometry.matryoshka_dims"),
        ({"matryoshka_dims": ()}, "geometry.matryoshka_dims"),
        ({"matryoshka_dims": (32, 16, 64)}, "geometry.matryoshka_dims"),
        ({"full_attention_blocks": (4,)}, "geometry.full_attention_blocks: .* from 0 to 3"),
        ({"min_pixels": 700_000}, "geometry.min_pixels: 700000 .* at most max_pixels, 602112"),
        ({"layers": 0}, "geometry.layers: 0 is not a size; expected 1 or more"),
        ({"vocabulary": 100}, "geometry.vocabulary: 100 is too small; expected 0"),
    ],
)
def test_a_geometry_that_cannot_be_is_refused_in_one_sentence(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=f"^{message}"):
        dataclasses.replace(TINY, **change)


def test_the_matryoshka_lengths_follow_the_width_asked_for() -> None:
    assert tiny_geometry(128).matryoshka_dims == (32, 64, 128)
    with pytest.raises(SpecError, match=r"^geometry\.hidden: 100 "):
        tiny_geometry(100)
