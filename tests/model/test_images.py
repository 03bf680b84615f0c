"""Each way an image can be unfit has its reason, and what is fit becomes the right pixels."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from pipeline.errors import Reason, RowError
from pipeline.model import images
from pipeline.model.images import (
    IMAGE_PIXELS,
    MAX_ASPECT_RATIO,
    PixelBounds,
    decode,
    fit,
    resize,
    to_rgb,
)
from pipeline.spec import LimitsSpec
from tests.model.oracle import smart_resize
from tests.model.parity_items import encoded, picture

OFFICIAL = PixelBounds(factor=28, least=3136, most=602112)
ALL_SIX = pytest.mark.parametrize("kind", images.FORMATS)
PICTURE = picture(40, 30)


def reason(data: bytes) -> Reason:
    with pytest.raises(RowError) as refused:
        decode(data)
    assert str(refused.value)
    return refused.value.reason


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size without a single pixel in it."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )


# Refused ----------------------------------------------------------------------------------------


@ALL_SIX
@pytest.mark.fault("image.truncated")
def test_half_a_file_is_truncated(kind: str) -> None:
    data = encoded(PICTURE, kind)
    assert reason(data[: len(data) // 2]) == Reason.IMAGE_TRUNCATED


@ALL_SIX
def test_whatever_happens_to_its_bytes_an_image_is_decoded_or_refused(kind: str) -> None:
    # any other exception would stop a night's run for one bad row
    data, random = encoded(PICTURE, kind), np.random.default_rng(0)
    refused = set()
    for _ in range(150):
        damaged = np.frombuffer(data, np.uint8).copy()
        places = random.integers(0, len(damaged), random.integers(0, 4))
        damaged[places] = random.integers(0, 256, len(places))
        kept = random.integers(0, len(damaged) + 1)
        try:
            with warnings.catch_warnings():
                # Pillow tells of odd metadata, which is nothing to a pixel
                warnings.simplefilter("ignore", UserWarning)
                decode(damaged[:kept].tobytes())
        except RowError as error:
            refused.add(error.reason)
    assert Reason.IMAGE_TRUNCATED in refused


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 100,
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"\x89PNG\r\n\x1a\n",
    ],
    ids=["empty", "zeros", "HTML", "SVG", "a signature alone"],
)
@pytest.mark.fault("image.not_an_image")
def test_bytes_of_no_image_are_not_an_image(data: bytes) -> None:
    assert reason(data) == Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF", "PPM", "TGA"])
@pytest.mark.fault("image.other_format")
def test_formats_beyond_the_six_are_not_an_image(kind: str) -> None:
    assert reason(encoded(PICTURE, kind)) == Reason.NOT_AN_IMAGE


@pytest.mark.fault("image.bomb")
def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    # had its pixels been asked for, it would be truncated instead
    assert reason(png_header(100_000, 100_000)) == Reason.IMAGE_TOO_LARGE


@pytest.mark.fault("image.over_limit")
def test_one_pixel_above_the_bound_is_too_large_and_the_bound_itself_is_not() -> None:
    assert IMAGE_PIXELS == 8000 * 5000 == LimitsSpec().image_pixels
    assert reason(png_header(IMAGE_PIXELS + 1, 1)) == Reason.IMAGE_TOO_LARGE
    assert reason(png_header(8000, 5000)) == Reason.IMAGE_TRUNCATED


def test_a_decoded_image_has_the_same_bound() -> None:
    assert to_rgb(PICTURE, 40 * 30).shape == (30, 40, 3)
    with pytest.raises(RowError, match="41 x 30 pixels") as refused:
        to_rgb(picture(41, 30), 40 * 30)
    assert refused.value.reason == Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize(("height", "width"), [(201, 1), (1, 201), (2, 401), (100_000, 499)])
@pytest.mark.fault("image.thin")
def test_a_side_over_200_times_the_other_is_refused(height: int, width: int) -> None:
    with pytest.raises(RowError, match="200 times") as refused:
        fit(height, width, OFFICIAL)
    assert refused.value.reason == Reason.IMAGE_ASPECT_RATIO


# Decoded ----------------------------------------------------------------------------------------


@ALL_SIX
def test_each_of_the_six_formats_is_decoded(kind: str) -> None:
    pixels = decode(encoded(PICTURE, kind))
    assert (pixels.shape, pixels.dtype) == ((30, 40, 3), np.uint8)
    if kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(pixels, np.asarray(PICTURE))


@pytest.mark.parametrize(
    "mode",
    [
        *("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA"),
        *("RGBX", "RGBa", "I;16", "I;16L", "I;16B"),
    ],
)
@pytest.mark.fault("image.modes")
def test_an_image_of_any_mode_becomes_rgb(mode: str) -> None:
    pixels = to_rgb(Image.new(mode, (4, 3)))
    assert (pixels.shape, pixels.dtype) == ((3, 4, 3), np.uint8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
@pytest.mark.fault("image.modes")
def test_a_mode_a_file_can_have_keeps_its_values(mode: str) -> None:
    image = picture(40, 30).convert(mode)
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


@pytest.mark.fault("image.modes")
def test_alpha_is_dropped_and_not_blended() -> None:
    image = PICTURE.copy()
    image.putalpha(0)
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), np.asarray(PICTURE))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
@pytest.mark.fault("image.frames")
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert (decode(data) == np.array([255, 0, 0])).all()


# Resized ----------------------------------------------------------------------------------------


@st.composite
def sides(draw: st.DrawFn) -> tuple[int, int]:
    """A height and a width no more than MAX_ASPECT_RATIO apart, small and thin ones included."""
    short = draw(st.integers(1, 40) | st.integers(1, 20_000))
    long = draw(st.integers(short, MAX_ASPECT_RATIO * short))
    return (short, long) if draw(st.booleans()) else (long, short)


# Below 200 * 28 * 28 pixels a thin strip has more than `most`, in the reference too.
BOUNDS = st.just(OFFICIAL) | st.builds(
    PixelBounds,
    factor=st.just(28),
    least=st.integers(784, 10_000),
    most=st.integers(MAX_ASPECT_RATIO * 784, 20_000_000),
)


@settings(deadline=None, derandomize=True)
@given(sides(), BOUNDS)
def test_fitted_sides_are_multiples_of_the_factor_and_their_area_is_within_the_bounds(
    size: tuple[int, int], bounds: PixelBounds
) -> None:
    height, width = fit(*size, bounds)
    assert height % 28 == width % 28 == 0
    assert bounds.least <= height * width <= bounds.most


@settings(deadline=None, derandomize=True)
@given(sides(), BOUNDS)
def test_fitting_knows_no_up_from_across_and_leaves_what_fits(
    size: tuple[int, int], bounds: PixelBounds
) -> None:
    height, width = fit(*size, bounds)
    assert fit(size[1], size[0], bounds) == (width, height)
    assert fit(height, width, bounds) == (height, width)


@settings(deadline=None, derandomize=True)
@given(sides(), st.integers(1, 64), st.integers(1, 10**6), st.integers(1, 10**7))
def test_fitting_follows_the_models_formula_under_any_bounds(
    size: tuple[int, int], factor: int, least: int, more: int
) -> None:
    bounds = PixelBounds(factor=factor, least=least, most=least + more)
    expected = smart_resize(*size, factor=factor, min_pixels=least, max_pixels=least + more)
    assert fit(*size, bounds) == expected


@pytest.mark.parametrize(("width", "height"), [(317, 203), (9, 5), (1, 1), (11, 300), (1500, 900)])
@pytest.mark.fault("image.one_pixel")
def test_resizing_is_torchs_own_on_uint8_to_the_bit(width: int, height: int) -> None:
    pixels = np.asarray(picture(width, height))
    got = resize(pixels, OFFICIAL)
    planes_3yx = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    expected = interpolate(
        planes_3yx[None],
        fit(height, width, OFFICIAL),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    np.testing.assert_array_equal(got, expected[0].numpy().transpose(1, 2, 0))
    assert got.dtype == np.uint8 and got.flags.c_contiguous


def test_an_image_that_fits_is_not_touched() -> None:
    pixels = np.asarray(picture(112, 84))
    assert resize(pixels, OFFICIAL) is pixels
