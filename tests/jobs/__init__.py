"""A small corpus in every format, and the command as a user calls it, for the jobs' tests."""

import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jobs.cli import main

TEXTS = ("The owl hunts at night.", "def f(x):\n    return x + 1", "ключ и замок", "a")
TASKS = ("retrieval.query", "code.passage", "text-matching", "retrieval.passage")

OPEN_GATE = {"shrink": None, "growth": None, "near_identical": None, "shift": None}
"""Of nights that do what no ordinary night does."""

KILLED = """
import os, signal, sys
from pipeline.records import Records
original, left = Records.record, [int(sys.argv[1])]
def record(self, receipt, revision):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return original(self, receipt, revision)
Records.record = record
from jobs.cli import main
sys.exit(main(sys.argv[2:]))
"""
"""A program that runs the command and is killed when it is about to record the next unit."""


def png(seed: int) -> bytes:
    """A small encoded image."""
    noise = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, **more: Any) -> dict[str, Any]:
    """A shard of the four texts; returns a source that reads it."""
    columns = {
        "doc": pa.array([10, 11, 12, 13]),
        "body": TEXTS,
        "kind": TASKS,
        "title": list("ABCD"),
    }
    pq.write_table(pa.table(columns | more), path, row_group_size=2)
    return {
        "uri": str(path),
        "format": "parquet",
        "id": "doc",
        "text": "body",
        "task": "retrieval.passage",
        "keep": ["title"],
    }


def write_tar(path: Path) -> dict[str, Any]:
    """A tar of two texts and an image."""
    members = [("x/0.txt", TEXTS[0].encode()), ("x/1.txt", TEXTS[2].encode()), ("x/2.png", png(1))]
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"uri": str(path), "format": "webdataset", "task": "text-matching"}


def write_jsonl(path: Path) -> dict[str, Any]:
    """A shard of two lines and a malformed one."""
    lines = [json.dumps({"doc": f"d{n}", "body": TEXTS[n], "kind": TASKS[n]}) for n in range(2)]
    path.write_text("\n".join([lines[0], "{oops", lines[1]]))
    return {
        "uri": str(path),
        "format": "jsonl",
        "id": "doc",
        "text": "body",
        "task": {"column": "kind"},
    }


def write_images(directory: Path) -> dict[str, Any]:
    """A folder of two images."""
    (directory / "deep").mkdir(parents=True)
    (directory / "a.png").write_bytes(png(2))
    (directory / "deep/b.png").write_bytes(png(3))
    return {"uri": str(directory), "format": "images", "task": "retrieval.passage"}


def write_spec(
    directory: Path, checkpoint: Path | str, source: object, output: object = None
) -> Path:
    """A spec file; its output is `directory/out`, single and multi, unless one is given."""
    spec = {
        "name": "test",
        "model": {"path": str(checkpoint), "max_pixels": 28 * 28 * 6, "max_length": 64},
        "source": source,
        "limits": {"quarantine_share": 1.0},
        "output": output
        or {"uri": str(directory / "out"), "single": {"dim": 32}, "multi": {"dtype": "float32"}},
    }
    path = directory / "job.yaml"
    path.write_text(json.dumps(spec))
    return path


def embed(spec: Path, *more: str) -> int:
    """`nightjar embed` in this process, without Ray."""
    return main(["embed", str(spec), "--address", "none", *more])


def embed_killed_after(units: int, spec: Path, *more: str) -> None:
    """The same in a process that is killed when it is about to record the next unit."""
    killed_after(units, "embed", str(spec), "--address", "none", *more)


def killed_after(units: int, *arguments: str) -> None:
    """A command in a process that is killed when it is about to record the next unit."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(units), *arguments], check=False, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
