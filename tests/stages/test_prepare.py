"""Preparation: every fault of a row becomes a reason, and its neighbours do not notice."""

import gc
import hashlib
import io
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.model.checkpoint import open_checkpoint
from pipeline.model.processor import PreparedItem, Processor
from pipeline.schema import prepared_schema, source_schema
from pipeline.stages.prepare import Prepare
from pipeline.tasks import TASKS

KEPT = (pa.field("title", pa.string()),)
TASK = "retrieval.passage"


def _encoded(kind: str = "PNG", size: tuple[int, int] = (60, 40), mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(3).integers(0, 255, (size[1], size[0], 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, kind)
    return buffer.getvalue()


PNG = _encoded()


def _png_of_size(width: int, height: int) -> bytes:
    """A tiny file whose header announces a large image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + checksum

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def processor(tiny_checkpoint: Path) -> Processor:
    return Processor(open_checkpoint(tiny_checkpoint), max_length=40, max_pixels=28 * 28 * 16)


@pytest.fixture(scope="module")
def prepare(processor: Processor) -> Prepare:
    return Prepare(processor, pa.string(), KEPT)


def _rows(*rows: dict[str, Any]) -> pa.Table:
    schema = source_schema(pa.string(), KEPT)
    base = {"task": TASK, "kept": {"title": "t"}}
    whole = [
        {name: None for name in schema.names}
        | {"row": n + 50, "locator": f"shard#row={n}", "id": f"id {n}"}
        | base
        | row
        for n, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(whole, schema)


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("neither", {}, "null_input"),
    ("empty text", {"text": b""}, "empty_input"),
    ("white space", {"text": " \t\n\u00a0\u3000".encode()}, "empty_input"),
    ("invalid UTF-8", {"text": b"caf\xe9 \xff"}, "invalid_unicode"),
    ("lone surrogate", {"text": "a\ud800b".encode(errors="surrogatepass")}, "invalid_unicode"),
    ("empty image", {"image": b""}, "not_an_image"),
    ("HTML", {"image": b"<!doctype html><html>404</html>"}, "not_an_image"),
    ("zeros", {"image": bytes(2000)}, "not_an_image"),
    ("PDF", {"image": b"%PDF-1.7\n" + b"x" * 500}, "not_an_image"),
    ("PostScript", {"image": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}, "not_an_image"),
    ("truncated PNG", {"image": PNG[: len(PNG) // 2]}, "image_truncated"),
    ("truncated JPEG", {"image": _encoded("JPEG")[:-400]}, "image_truncated"),
    ("bomb", {"image": _png_of_size(20000, 20000)}, "image_too_large"),
    ("large", {"image": _png_of_size(10000, 9000)}, "image_too_large"),
    ("a line", {"image": _encoded(size=(801, 4))}, "image_aspect_ratio"),
    ("null id", {"id": None, "text": b"fine"}, "null_id"),
    ("unknown task", {"task": "retrieval", "text": b"fine"}, "unknown_task"),
    ("null task", {"task": None, "text": b"fine"}, "unknown_task"),
    (
        "found by the source",
        {"reason": "image_not_found", "stage": "source", "message": "no object"},
        "image_not_found",
    ),
]


@pytest.mark.parametrize(("row", "reason"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
@pytest.mark.fault(
    "text.null",
    "text.empty",
    "text.invalid_utf8",
    "text.lone_surrogate",
    "image.not_an_image",
    "image.truncated",
    "image.bomb",
    "image.over_limit",
    "image.thin",
    "id.null",
)
def test_a_faulty_row_has_a_reason_and_its_neighbours_are_prepared(
    prepare: Prepare, row: dict[str, Any], reason: str
) -> None:
    before, after = {"text": b"before"}, {"text": b"after", "image": PNG}
    alone = prepare(_rows(before, before, after))
    items = prepare(_rows(before, row, after))
    assert items.schema.equals(prepared_schema(pa.string(), KEPT))
    assert items["row"].to_pylist() == [50, 51, 52, 52]
    assert items["reason"].to_pylist() == [None, reason, None, None]
    assert items["modality"].to_pylist()[2:] == ["text", "image"]
    (faulty,) = items.slice(1, 1).to_pylist()
    assert faulty["token_ids"] == []
    assert faulty["pixels"] is None
    assert faulty["message"]
    assert faulty["stage"] == row.get("stage", "prepare")
    assert faulty["locator"] == "shard#row=1"
    for at in (0, 2, 3):
        assert items.slice(at, 1).equals(alone.slice(at, 1))


def test_a_row_with_a_text_and_an_image_is_two_items_with_the_same_id(prepare: Prepare) -> None:
    items = prepare(_rows({"text": b"hello", "image": PNG})).to_pylist()
    assert [(item["id"], item["modality"], item["reason"]) for item in items] == [
        ("id 0", "text", None),
        ("id 0", "image", None),
    ]
    assert items[0]["pixels"] is None
    height, width = items[1]["height"], items[1]["width"]
    assert (height % 28, width % 28) == (0, 0)
    assert len(items[1]["pixels"]) == height * width * 3
    assert [item["kept"] for item in items] == [{"title": "t"}] * 2


def test_the_fault_of_one_modality_leaves_the_other(prepare: Prepare) -> None:
    fault = {"reason": "unsafe_path", "stage": "source", "message": "m"}
    items = prepare(
        _rows(
            {"text": b"x", "image": b"<html>"}, {"text": b" ", "image": PNG}, {"text": b"y"} | fault
        )
    ).to_pylist()
    assert [(item["row"], item["modality"], item["reason"]) for item in items] == [
        (50, "text", None),
        (50, "image", "not_an_image"),
        (51, "text", "empty_input"),
        (51, "image", None),
        (52, "image", "unsafe_path"),
        (52, "text", None),
    ]


@pytest.mark.fault("text.odd_characters")
def test_the_hash_is_of_the_modality_and_the_bytes(prepare: Prepare) -> None:
    items = prepare(_rows({"text": PNG, "image": PNG}, {"text": b"\xef\xbb\xbfe\xcc\x81\0"}, {}))
    assert items["source_hash"].to_pylist() == [
        hashlib.sha256(b"text\0" + PNG).digest(),
        hashlib.sha256(b"image\0" + PNG).digest(),
        hashlib.sha256(b"text\0\xef\xbb\xbfe\xcc\x81\0").digest(),
        None,
    ]


@pytest.mark.parametrize("task", TASKS)
def test_a_text_is_prepared_with_the_prefix_of_its_task(
    prepare: Prepare, processor: Processor, task: str
) -> None:
    (item,) = prepare(_rows({"text": b"def f(): ...", "task": task})).to_pylist()
    expected = processor.text("def f(): ...", TASKS[task])
    assert item["token_ids"] == expected.token_ids.tolist()
    assert item["task"] == task


@pytest.mark.fault("text.too_long")
def test_a_long_text_is_cut_and_says_so(prepare: Prepare) -> None:
    long, short = prepare(_rows({"text": b"word " * 500}, {"text": b"word"})).to_pylist()
    assert (len(long["token_ids"]), long["truncated"]) == (40, True)
    assert (len(short["token_ids"]) < 40, short["truncated"]) == (True, False)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_the_six_formats_are_decoded_to_rgb(prepare: Prepare, kind: str, mode: str) -> None:
    if mode == "RGBA" and kind == "JPEG":
        mode = "CMYK"
    (item,) = prepare(_rows({"image": _encoded(kind, mode=mode)})).to_pylist()
    assert item["reason"] is None
    assert len(item["pixels"]) == item["height"] * item["width"] * 3


@pytest.mark.fault("id.types")
def test_ids_of_any_type_travel_unchanged(processor: Processor) -> None:
    for kind, value in ((pa.int64(), -5), (pa.binary(16), bytes(16)), (pa.string(), "\n../x")):
        schema = source_schema(kind, ())
        row = {"row": 0, "locator": "l", "id": value, "task": TASK, "text": b"x", "kept": {}}
        items = Prepare(processor, kind, ())(pa.Table.from_pylist([row], schema))
        assert items.schema.field("id").type == kind
        assert items["id"].to_pylist() == [value]


def test_an_id_that_is_not_utf8_does_not_end_the_run(prepare: Prepare) -> None:
    rows = _rows({"text": b"a"}, {"text": b"b"})
    bad = pa.array([b"fine", b"\xff"], pa.binary()).view(pa.string())
    items = prepare(rows.set_column(2, rows.schema.field("id"), bad))
    assert items["reason"][0].as_py() is None


_CHOICES = st.lists(st.sampled_from([row for _, row, _ in FAULTS] + [{"text": b"a"}]), max_size=12)


@given(rows=_CHOICES)
def test_no_row_is_lost_or_made_up(prepare: Prepare, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        rows = [{"text": b"only"}]
    items = prepare(_rows(*rows))
    assert items["row"].to_pylist() == [number + 50 for number in range(len(rows))]
    well = sum(row == {"text": b"a"} or row == {"text": b"only"} for row in rows)
    assert items["reason"].null_count == well
    assert items.num_rows - well == sum(items["message"].is_valid().to_pylist())


def test_sliced_and_chunked_input_is_the_same_as_whole(prepare: Prepare) -> None:
    rows = _rows(*({"text": f"text {n}".encode()} for n in range(6)))
    whole = prepare(rows)
    chunked = pa.concat_tables([rows.slice(0, 2), rows.slice(2, 4)])
    assert prepare(chunked).equals(whole)
    assert prepare(rows.slice(3)).equals(whole.slice(3))


def test_pixels_are_let_go_of(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[weakref.ref[Any]] = []
    image = Processor.image

    def watched(self: Processor, content: bytes) -> PreparedItem:
        prepared = image(self, content)
        decoded.append(weakref.ref(prepared.pixels))
        return prepared

    monkeypatch.setattr(Processor, "image", watched)
    prepare(_rows({"image": _encoded()}, {"image": _encoded()}))
    gc.collect()
    assert [pixels() is None for pixels in decoded] == [True, True]


def test_a_fault_of_the_whole_row_sets_all_of_it_aside_once(prepare: Prepare) -> None:
    fault = {"reason": "invalid_unicode", "stage": "source", "message": "'title' is not UTF-8"}
    items = prepare(_rows({"text": b"x", "image": PNG} | fault, {"text": b"y"})).to_pylist()
    assert [(item["row"], item["modality"], item["reason"]) for item in items] == [
        (50, None, "invalid_unicode"),
        (51, "text", None),
    ]
