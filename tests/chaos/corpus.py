"""A corpus in all four formats that knows, by itself, what must come of it.

What is expected is written down where each row is made, so that it owes nothing to the code that
reads, routes and embeds: a row that the pipeline never sees is missed all the same.
"""

import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

_TASKS = ("retrieval.query", "text-matching", "retrieval.passage")
"""Two adapters: an actor of a third would cost each run seconds and add nothing."""
ADAPTERS = ("retrieval", "text-matching")
_WORDS = ("owl", "night", "field", "mouse", "hunts", "runs", "over", "under", "every", "no")
_SHARDS, _ROWS, _LINES, _SAMPLES, _PAGES = 3, 60, 150, 20, 12


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a corpus must become."""

    embedded: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(id, modality, task), each once."""
    quarantined: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    """(id, reason)."""

    def embed(self, name: str, modality: str, task: str) -> None:
        """One item more that must be embedded."""
        self.embedded[name, modality, task] += 1

    def set_aside(self, name: str | None, reason: str) -> None:
        """One item more that must be set aside."""
        self.quarantined[name, reason] += 1


def write_corpus(root: Path, seed: int) -> Expected:
    """Write all shards below a directory; what must come of them."""
    random, expected = Random(seed), Expected()
    for shard in range(_SHARDS):
        _write_parquet(root / "docs" / f"part-{shard}.parquet", shard, random, expected)
    _write_jsonl(root / "lines.jsonl", random, expected)
    _write_tar(root / "samples" / "part-0.tar", random, expected)
    _write_pages(root / "pages", random, expected)
    return expected


def write_spec(
    path: Path, corpus: Path, checkpoint: Path, output: str, actor_cpus: float = 0.25
) -> Path:
    """A job over all of it, in units of a few rows."""
    spec = {
        "name": "chaos",
        "model": {"path": str(checkpoint), "max_length": 64},
        "source": [
            {
                "uri": f"{corpus}/docs/*.parquet",
                "format": "parquet",
                "id": "doc",
                "text": "body",
                "image": "page",
                "task": {"column": "task"},
            },
            {
                "uri": f"{corpus}/lines.jsonl",
                "format": "jsonl",
                "id": "key",
                "text": "body",
                "task": "text-matching",
            },
            {"uri": f"{corpus}/samples", "format": "webdataset", "task": "retrieval.passage"},
            {"uri": f"{corpus}/pages", "format": "images", "task": "retrieval.passage"},
        ],
        "output": {"uri": output, "single": {"dim": 32}, "multi": {"dtype": "float16"}},
        "compute": {
            "unit_rows": 3,
            "pools": {name: {"max": 1, "cpus": actor_cpus} for name in ADAPTERS},
        },
        "limits": {"quarantine_share": 1.0},
    }
    path.write_text(yaml.safe_dump(spec))
    return path


def _sentence(random: Random) -> str:
    return " ".join(random.choices(_WORDS, k=random.randint(3, 12)))


def _image(random: Random) -> bytes:
    colour = (random.randrange(256), random.randrange(256), random.randrange(256))
    page = Image.new("RGB", (random.randint(40, 80), random.randint(40, 80)), colour)
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def _write_parquet(path: Path, shard: int, random: Random, expected: Expected) -> None:
    columns: dict[str, list[object]] = {name: [] for name in ("doc", "body", "page", "task")}
    for row in range(_ROWS):
        name, task = f"doc-{shard}-{row}", _TASKS[row % len(_TASKS)]
        body: str | None = _sentence(random)
        page: bytes | None = None
        match row:
            case 3:
                body = None
                expected.set_aside(name, "null_input")
            case 7:
                body = "   "
                expected.set_aside(name, "empty_input")
            case 11:
                task = "no-such-task"
                expected.set_aside(name, "unknown_task")
            case 21:
                page = b"<html>not found</html>"
                expected.embed(name, "text", task)
                expected.set_aside(name, "not_an_image")
            case 22:
                page = _image(random)
                expected.embed(name, "text", task)
                expected.embed(name, "image", task)
            case _:
                expected.embed(name, "text", task)
        for column, value in zip(columns, (name, body, page, task), strict=True):
            columns[column].append(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({**columns, "page": pa.array(columns["page"], pa.binary())})
    pq.write_table(table, path, row_group_size=20)


def _write_jsonl(path: Path, random: Random, expected: Expected) -> None:
    lines = []
    for row in range(_LINES):
        if row == 40:
            lines.append("{broken")
            expected.set_aside(None, "malformed_record")
            continue
        lines.append(json.dumps({"key": f"line-{row}", "body": _sentence(random)}))
        expected.embed(f"line-{row}", "text", "text-matching")
    path.write_text("\n".join(lines) + "\n")


def _write_tar(path: Path, random: Random, expected: Expected) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for row in range(_SAMPLES):
            name = f"sample-{row}"
            members = {"txt": _sentence(random).encode()} if row < 16 else {}
            if row >= 14:
                members["png"] = _image(random)
            for extension, content in members.items():
                member = tarfile.TarInfo(f"{name}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                modality = {"txt": "text", "png": "image"}[extension]
                expected.embed(name, modality, "retrieval.passage")


def _write_pages(folder: Path, random: Random, expected: Expected) -> None:
    (folder / "deep").mkdir(parents=True)
    for row in range(_PAGES):
        name = f"deep/{row}.png" if row % 2 else f"{row}.png"
        if row == 4:
            (folder / name).write_bytes(b"\x00" * 64)
            expected.set_aside(name, "not_an_image")
            continue
        (folder / name).write_bytes(_image(random))
        expected.embed(name, "image", "retrieval.passage")
