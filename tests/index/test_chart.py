"""The chart of an evaluation can be read, whatever the values are."""

import io
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from pipeline.index.chart import chart, drawn, in_bytes
from pipeline.index.evaluate import MEASURES, Measured, Result

_SIZES = (128, 256, 512, 1024, 2048)


def _result(vectors: str, dim: int, size: float, mean: float, half: float) -> Result:
    measured = Measured(mean=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))
    return Result(
        vectors=vectors,
        dim=dim,
        dtype="float32",
        vectors_per_document=1,
        bytes_per_document=size,
        reranked=None,
        measures=dict.fromkeys(MEASURES, measured),
    )


def _results(means: Sequence[float], half: float, multi: tuple[float, float]) -> list[Result]:
    singles = [
        _result("single", dim, 4.0 * dim, mean, half)
        for dim, mean in zip(_SIZES, means, strict=True)
    ]
    return [*singles, _result("multi", 128, *multi, half)]


def _names(figure: Figure) -> list[Annotation]:
    (axes,) = figure.axes
    return [text for text in axes.texts if isinstance(text, Annotation)]


@settings(max_examples=12)
@given(
    means=st.lists(st.floats(0, 1), min_size=5, max_size=5),
    half=st.floats(0, 0.1),
    multi=st.tuples(st.floats(2_000, 400_000), st.floats(0, 1)),
)
def test_all_is_named_within_the_chart_and_no_name_covers_another(
    means: list[float], half: float, multi: tuple[float, float]
) -> None:
    figure = chart(_results(means, half, multi), "title")
    figure.draw_without_rendering()
    named = _names(figure)
    assert [name.get_text() for name in named] == [
        *(f"single {dim}" for dim in _SIZES),
        "multi 128",
    ]
    boxes = [name.get_window_extent() for name in named]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    assert low <= min(means) and max(means) <= high
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_the_axis_is_sane_where_all_values_are_equal(value: float) -> None:
    figure = chart(_results([value] * 5, 0.0, (8192.0, value)), "title")
    low, high = figure.axes[0].get_ylim()
    assert 0 <= low <= value < high <= 1.1
    assert high - low >= 0.01


def test_it_is_drawn_as_a_picture_with_ink() -> None:
    drawing = drawn([_result("multi", 128, 9e4, 0.4, 0.1)], "title")
    with Image.open(io.BytesIO(drawing)) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1200, 720)
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    # the colour of multi-vectors
    assert (pixels == (0xC8, 0x55, 0x3D)).all(axis=1).sum() > 50


@pytest.mark.parametrize(
    ("size", "spelt"), [(64, "64 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (2**31, "2 GiB")]
)
def test_bytes_are_spelt(size: float, spelt: str) -> None:
    assert in_bytes(size) == spelt
