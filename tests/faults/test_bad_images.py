"""Every image of the catalogue, between two good ones, through the command."""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from pipeline import Embedder, open_dataset
from pipeline.errors import Reason, RowError
from pipeline.model.images import FORMATS, decode
from tests.faults.corpus import EMBEDDED, Outcome, run_parquet, surrounded
from tests.jobs import embed, png, write_images, write_spec


def _noise(width: int = 60, height: int = 40) -> Image.Image:
    values = np.random.default_rng(5).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(*chunks: bytes, width: int = 4, height: int = 4) -> bytes:
    """A PNG by hand: of any size in its header, with any chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = b"".join(b"\0" + bytes(range(12)) for _ in range(4))
    pixels = _chunk(b"IDAT", zlib.compress(lines))
    parts = (_chunk(b"IHDR", header), *chunks, pixels, _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _zeroed(jpeg: bytes) -> bytes:
    middle = len(jpeg) // 2
    return jpeg[: middle - 100] + bytes(200) + jpeg[middle + 100 :]


_JPEG = _saved(_noise(), "JPEG")
_SWELLING = zlib.compress(bytes(200_000_000), 9)
"""200 KB that become 200 MB."""
_FRAMES: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", (60, 40), "blue")]}
_ORIENTED = Image.Exif()
_ORIENTED[0x0112] = 6

IMAGES: dict[str, tuple[bytes, str]] = {
    "truncated JPEG": (_JPEG[:-400], "image_truncated"),
    "truncated PNG": (png(3)[:-400], "image_truncated"),
    "zeroed scan": (_zeroed(_JPEG), EMBEDDED),
    "bomb": (_png(width=100_000, height=100_000), "image_too_large"),
    "over the limit": (_png(width=8001, height=5000), "image_too_large"),
    "zTXt bomb": (_png(_chunk(b"zTXt", b"c\0\0" + _SWELLING)), "image_truncated"),
    "iTXt bomb": (_png(_chunk(b"iTXt", b"c\0\1\0\0\0" + _SWELLING)), "image_truncated"),
    "iCCP bomb": (_png(_chunk(b"iCCP", b"c\0\0" + _SWELLING)), "image_truncated"),
    "no pixels": (_png(width=0, height=0), "not_an_image"),
    "one pixel": (_saved(_noise(1, 1), "PNG"), EMBEDDED),
    "thin": (_saved(_noise(2001, 10), "PNG"), "image_aspect_ratio"),
    "no bytes": (b"", "not_an_image"),
    "HTML": (b"<!doctype html><html>404</html>", "not_an_image"),
    "zeros": (bytes(5000), "not_an_image"),
    "PDF": (_saved(_noise(), "PDF"), "not_an_image"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not_an_image"),
    "EPS": (_saved(_noise(), "EPS"), "not_an_image"),
    "icon": (_saved(_noise(), "ICO"), "not_an_image"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), "not_an_image"),
    "CMYK": (_saved(_noise().convert("CMYK"), "JPEG"), EMBEDDED),
    "grey and alpha": (_saved(_noise().convert("LA"), "PNG"), EMBEDDED),
    "palette": (_saved(_noise().convert("P"), "PNG", transparency=0), EMBEDDED),
    "16 bits": (_saved(Image.new("I;16", (60, 40), 700), "PNG"), EMBEDDED),
    "frames of a GIF": (_saved(_noise(), "GIF", **_FRAMES), EMBEDDED),
    "pages of a TIFF": (_saved(_noise(), "TIFF", **_FRAMES), EMBEDDED),
    "orientation": (_saved(_noise(), "PNG", exif=_ORIENTED), EMBEDDED),
    "garbage profile": (_png(_chunk(b"iCCP", b"c\0\0" + zlib.compress(b"junk"))), EMBEDDED),
    "broken profile": (_png(_chunk(b"iCCP", b"c\0\0" + b"junk")), EMBEDDED),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Outcome:
    """A Parquet shard of every image."""
    rows = surrounded({name: cell for name, (cell, _) in IMAGES.items()}, [png(1), png(2)])
    directory = tmp_path_factory.mktemp("images")
    return run_parquet(directory, tiny_checkpoint, "image", rows, set(IMAGES))


@pytest.mark.fault("image.truncated", "image.zeroed_bytes", "image.bomb", "image.over_limit")
@pytest.mark.fault("image.metadata_bomb", "image.no_pixels", "image.one_pixel", "image.thin")
@pytest.mark.fault("image.not_an_image", "image.other_format", "image.modes", "image.frames")
@pytest.mark.fault("image.orientation", "image.colour_profile")
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_its_outcome_and_its_neighbours_do_not_notice(
    images: Outcome, name: str
) -> None:
    images.demand(name, IMAGES[name][1])


@pytest.mark.fault("image.orientation", "image.frames", "image.colour_profile")
@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("orientation", _saved(_noise(), "PNG")),
        ("pages of a TIFF", _saved(_noise(), "PNG")),
        ("garbage profile", _png()),
    ],
    ids=["orientation", "pages", "profile"],
)
def test_what_is_ignored_changes_no_vector(
    images: Outcome, tiny_checkpoint: Path, name: str, same: bytes
) -> None:
    embedder = Embedder.load(tiny_checkpoint, max_pixels=28 * 28 * 6)
    (expected,) = embedder.embed([same], dim=32).single
    np.testing.assert_allclose(images.embedded[name]["embedding"], expected, rtol=0, atol=1e-5)


@pytest.mark.fault("image.modes")
@pytest.mark.parametrize(
    ("mode", "value", "kind", "rgb"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 77, "PNG", (77, 77, 77)),
        ("LA", (77, 0), "PNG", (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), "PNG", (10, 20, 30)),
        ("CMYK", (0, 255, 255, 0), "TIFF", (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), "TIFF", (0, 0, 0)),
        # 16 bits are cut off at 255, not scaled: so does the reference
        ("I;16", 200, "PNG", (200, 200, 200)),
        ("I;16", 700, "PNG", (255, 255, 255)),
        ("I;16", 65535, "TIFF", (255, 255, 255)),
    ],
)
def test_a_mode_becomes_the_same_rgb_as_ever(
    mode: str, value: Any, kind: str, rgb: tuple[int, int, int]
) -> None:
    pixels = decode(_saved(Image.new(mode, (3, 2), value), kind))
    assert pixels.tolist() == [[list(rgb)] * 3] * 2


@pytest.mark.fault("image.over_limit")
def test_the_limit_on_pixels_is_the_specs(tmp_path: Path, tiny_checkpoint: Path) -> None:
    source = write_images(tmp_path / "pages")
    (tmp_path / "pages/large.png").write_bytes(_saved(_noise(61, 40), "PNG"))
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    assert embed(spec, "--set", f"limits.image_pixels={60 * 40}") == 0
    dataset = open_dataset(str(tmp_path / "out"))
    assert dataset.to_table()["id"].to_pylist() == ["a.png", "deep/b.png"]
    (aside,) = dataset.quarantine().to_pylist()
    assert (aside["id"], aside["reason"]) == ("large.png", "image_too_large")
    assert aside["message"].endswith("at most 2400 are decoded (limits.image_pixels)")


def _other_formats() -> Iterator[str]:
    Image.init()
    yield from sorted(set(Image.OPEN) - set(FORMATS))


@pytest.mark.fault("image.other_format")
def test_no_other_opener_sees_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    others = list(_other_formats())
    assert len(others) > 30
    for name in others:
        monkeypatch.setitem(Image.OPEN, name, (_refuse, None))
    for name, (data, outcome) in IMAGES.items():
        if outcome == "not_an_image":
            with pytest.raises(RowError) as refused:
                decode(data)
            assert refused.value.reason == Reason.NOT_AN_IMAGE, name


def _refuse(*_: object) -> ImageFile.ImageFile:
    raise AssertionError("a format beyond the six was opened")


@pytest.mark.fault("image.other_format")
def test_postscript_starts_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = tmp_path / "gs"
    interpreter.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RowError):
        decode(IMAGES["EPS"][0])
    assert not (tmp_path / "started").exists()
