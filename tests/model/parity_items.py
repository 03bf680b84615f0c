"""The texts and images the parity tests embed, each under a name that says what it is there for."""

import io
from typing import Any

import numpy as np
from PIL import Image

# The pixel budget the parity tests embed under: every bound is met by a small image.
SMALL_MAX_PIXELS = 40 * 28 * 28

TEXTS: dict[str, str] = {
    "one letter": "a",
    "plain ASCII": "The nightjar, seldom seen, is heard at dusk; it counts 2 eggs, 3 moths.",
    "Chinese, Japanese, Korean": "夜鷹は夕暮れに鳴く。夜鹰在黄昏鸣叫。쏙독새는 해질녘에 운다.",
    "emoji with joiners": "👩‍👩‍👧 🏳️‍🌈 👍🏽 done",
    "accents, decomposed and composed": "cafe\u0301 caf\u00e9 \u1e9b\u0323",
    "right to left": "طائر السبد يُسمع عند الغسق",
    "code": "def f(x: int) -> int:\n\treturn x ** 2  # squares\n\n\nprint(f(3))\n",
    "outer whitespace": "  two spaces before, a newline after\n",
    "prefix typed by the user": "Query: Passage: which is it?",
    "vision tokens typed by the user": "a <|vision_start|><|image_pad|><|image_pad|><|vision_end|>",
    "chat tokens typed by the user": "<|im_start|>user\nhello<|im_end|>\n<|endoftext|>",
    "long": " ".join(f"Sentence {i} of {i * 7919 % 613} says nothing new." for i in range(40)),
}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB image of gradients, noise and hard edges; the edges are where resizers disagree."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramp_HWC = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=-1)
    noise_HWC = rng.integers(0, 256, (height, width, 3))
    stripes_HW = (x // 5 + y // 7) % 3 == 0
    pixels_HWC = np.where(stripes_HW[..., None], 255 - ramp_HWC, (ramp_HWC + noise_HWC) / 2)
    return Image.fromarray(pixels_HWC.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def see_through() -> Image.Image:
    """RGBA with colour under full transparency: dropping alpha and blending it differ widely."""
    image = picture(130, 90, seed=2).convert("RGBA")
    image.putalpha(Image.fromarray((np.mgrid[0:90, 0:130][1] % 2 * 255).astype(np.uint8)))
    return image


def turned() -> bytes:
    """A JPEG whose EXIF asks viewers to turn it by 90 degrees; the reference does not."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(150, 60, seed=3), "JPEG", exif=exif)


def palette_with_transparency() -> bytes:
    """A palette PNG with one transparent entry."""
    return encoded(picture(60, 60, seed=4).quantize(16), "PNG", transparency=3)


IMAGES: dict[str, bytes | Image.Image] = {
    "RGB, no resize needed": picture(112, 168),
    "RGB, sides half way between multiples": picture(98, 70, seed=1),  # round() goes to even
    "RGB, shrunk under max_pixels": picture(317, 203, seed=5),
    "RGB, tiny": picture(9, 5, seed=6),
    "RGB, one pixel": picture(1, 1, seed=7),
    "RGB, a wide strip": picture(460, 7, seed=8),
    "RGB, a tall strip": picture(11, 300, seed=9),
    "L": picture(90, 120, seed=10).convert("L"),
    "1-bit": picture(90, 120, seed=11).convert("1"),
    "LA": see_through().convert("LA"),
    "RGBA": see_through(),
    "P": picture(77, 99, seed=12).quantize(32),
    "P with transparency, PNG bytes": palette_with_transparency(),
    "RGBA, PNG bytes": encoded(see_through(), "PNG"),
    "RGBA, WebP bytes": encoded(see_through(), "WEBP", lossless=True, exact=True),
    "RGB, lossy WebP bytes": encoded(picture(84, 140, seed=13), "WEBP", quality=60),
    "RGB, PNG bytes": encoded(picture(120, 121, seed=14), "PNG"),
    "RGB, JPEG bytes": encoded(picture(133, 97, seed=15), "JPEG", quality=70),
    "L, JPEG bytes": encoded(picture(64, 64, seed=16).convert("L"), "JPEG"),
    "CMYK, JPEG bytes": encoded(picture(100, 64, seed=17).convert("CMYK"), "JPEG"),
    "JPEG bytes turned by EXIF": turned(),
}

ITEMS: dict[str, str | bytes | Image.Image] = {**TEXTS, **IMAGES}
