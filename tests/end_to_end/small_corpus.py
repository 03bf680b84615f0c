"""A corpus of all four formats, small, with rows that must be set aside among the good ones."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageDraw

TASKS = ("retrieval.query", "retrieval.passage", "code.query", "code.passage", "text-matching")

ROWS = 2 * 20 + 8 + 4 + 10
"""Source rows."""
PAIRED = 2 * 2 + 2
"""Of them, those with a text and an image."""
REASONS = {
    "null_input": 2,
    "empty_input": 2,
    "unknown_task": 2,
    "not_an_image": 1,
    "malformed_record": 1,
}
"""What must be set aside, by reason."""


def image(width: int, height: int, label: str) -> bytes:
    """A PNG with a label on it."""
    page = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(page).text((4, 4), label, fill="black")
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def write_corpus(root: Path) -> None:
    """Write all shards below a directory."""
    for shard in range(2):
        _write_parquet(root / "docs" / f"part-{shard}.parquet", shard)
    _write_tar(root / "samples" / "part-0.tar")
    (root / "pages" / "deep").mkdir(parents=True)
    for name in ("a.png", "b.png", "deep/c.png"):
        (root / "pages" / name).write_bytes(image(70, 90, name))
    (root / "pages" / "broken.png").write_bytes(b"<html>not found</html>")
    lines = [json.dumps({"key": f"line-{i}", "body": f"line number {i} of ten"}) for i in range(9)]
    (root / "lines.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")


def _write_parquet(path: Path, shard: int) -> None:
    texts: list[str | None] = [f"document {i} of shard {shard}, in words" for i in range(20)]
    tasks = [TASKS[i % len(TASKS)] for i in range(20)]
    pages: list[bytes | None] = [None] * 20
    texts[3], texts[7], tasks[11] = None, "  ", "no-such-task"
    pages[5] = pages[6] = image(60, 60, f"page {shard}")
    table = pa.table(
        {
            "doc": [f"{shard}/{i}" for i in range(20)],
            "body": texts,
            "page": pa.array(pages, pa.binary()),
            "task": tasks,
            "title": [f"title {i}" for i in range(20)],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=8)


def _write_tar(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i in range(8):
            members = {"json": json.dumps({"title": f"sample {i}"}).encode()}
            if i < 6:
                members["txt"] = f"sample text {i}".encode()
            if i >= 4:
                members["png"] = image(64, 48, str(i))
            for extension, content in members.items():
                member = tarfile.TarInfo(f"sample-{i}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_spec(path: Path, corpus: Path, checkpoint: Path, output: Path) -> Path:
    """A job spec over all of it."""
    spec = {
        "name": "small",
        "model": {"path": str(checkpoint), "max_length": 64},
        "source": [
            {
                "uri": f"{corpus}/docs/*.parquet",
                "format": "parquet",
                "id": "doc",
                "text": "body",
                "image": "page",
                "task": {"column": "task"},
                "keep": ["title"],
            },
            {
                "uri": f"{corpus}/samples",
                "format": "webdataset",
                "task": "retrieval.passage",
                "keep": ["title"],
            },
            {"uri": f"{corpus}/pages", "format": "images", "task": "retrieval.passage"},
            {
                "uri": f"{corpus}/lines.jsonl",
                "format": "jsonl",
                "id": "key",
                "text": "body",
                "task": "text-matching",
            },
        ],
        "output": {"uri": str(output), "single": {"dim": 32}, "multi": {"dtype": "float16"}},
        "compute": {"unit_rows": 8},
        "limits": {"quarantine_share": 1.0},
    }
    path.write_text(yaml.safe_dump(spec))
    return path
