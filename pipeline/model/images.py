"""From encoded bytes to the uint8 pixels the model sees.

The library's image processors differ among themselves (resize kernels, alpha), so these few lines
are ours and their version is part of every fingerprint. They follow the reference: alpha is
dropped, EXIF orientation ignored, the first frame taken, and the resize is torch's antialiased
bicubic on uint8, which is bit-exact with the reference's torchvision path where Pillow's own
differs by up to 20/255. Only six formats are opened, and the size in the header is checked before
a pixel is decoded.
"""

import io
import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.errors import Reason, RowError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
IMAGE_PIXELS = 40_000_000  # far above what a page is scanned at, and 120 MB as RGB
MAX_ASPECT_RATIO = 200  # the model's image processor refuses more

Pixels = NDArray[np.uint8]
"""[height, width, 3]"""


@dataclass(frozen=True, kw_only=True)
class PixelBounds:
    """What a resized image must satisfy."""

    factor: int
    """Both sides are multiples of it: patch size times merge size, 28."""
    least: int
    """Fewest pixels."""
    most: int
    """Most pixels."""


def decode(data: bytes, most: int = IMAGE_PIXELS) -> Pixels:
    """Decode an encoded image to RGB.

    Args:
        data: the whole file.
        most: pixels of the largest image that is decoded.

    Raises:
        RowError: not one of the six formats, broken, or too large.
    """
    with warnings.catch_warnings():
        # of bombs, for which our own bound gives a reason, and of odd metadata, which is not read
        warnings.simplefilter("ignore")
        return to_rgb(_open(data), most)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise RowError(Reason.IMAGE_TOO_LARGE, str(error)) from error
    except UnidentifiedImageError as error:
        raise RowError(
            Reason.NOT_AN_IMAGE, f"none of {', '.join(FORMATS)} in its {len(data)} bytes"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like on damaged data
        raise RowError(Reason.IMAGE_TRUNCATED, f"the header is broken: {error}") from error


def to_rgb(image: Image.Image, most: int = IMAGE_PIXELS) -> Pixels:
    """The first frame as RGB.

    Raises:
        RowError: the data is broken, or has more than `most` pixels.
    """
    if image.width * image.height > most:
        raise RowError(
            Reason.IMAGE_TOO_LARGE,
            f"{image.width} x {image.height} pixels, at most {most} are decoded "
            "(limits.image_pixels)",
        )
    try:
        return np.asarray(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # a short file is an OSError, a damaged one anything
        raise RowError(Reason.IMAGE_TRUNCATED, f"{image.format} data is broken: {error}") from error


def fit(height: int, width: int, bounds: PixelBounds) -> tuple[int, int]:
    """The size an image is resized to: multiples of the factor, area in bounds, aspect kept.

    The formula is `smart_resize` of Qwen2-VL.

    Raises:
        RowError: the aspect ratio is above MAX_ASPECT_RATIO.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise RowError(
            Reason.IMAGE_ASPECT_RATIO,
            f"{width} x {height} pixels: one side is over {MAX_ASPECT_RATIO} times the other",
        )
    factor = bounds.factor
    fitted = (round(height / factor) * factor, round(width / factor) * factor)
    area = fitted[0] * fitted[1]
    if area > bounds.most:
        shrink = math.sqrt(height * width / bounds.most)
        return (
            max(factor, math.floor(height / shrink / factor) * factor),
            max(factor, math.floor(width / shrink / factor) * factor),
        )
    if area < bounds.least:
        grow = math.sqrt(bounds.least / (height * width))
        return (
            math.ceil(height * grow / factor) * factor,
            math.ceil(width * grow / factor) * factor,
        )
    return fitted


def resize(pixels: Pixels, bounds: PixelBounds) -> Pixels:
    """Resize to what `fit` says, on uint8 (a float resize gives other values)."""
    size = fit(pixels.shape[0], pixels.shape[1], bounds)
    if size == pixels.shape[:2]:
        return pixels
    # channels last, as it lies in memory: the fastest of torch's paths
    source = torch.tensor(pixels).permute(2, 0, 1).unsqueeze(0)
    resized = torch.nn.functional.interpolate(
        source, size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
