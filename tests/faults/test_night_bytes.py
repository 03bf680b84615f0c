"""What a night costs of which one row in a hundred has changed, in shards that are else untouched:
a hundredth of the model's work, and little more of the source."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.folder import Folder
from tests.faults.proxy import Proxy
from tests.jobs import write_spec

pytestmark = pytest.mark.s3

_SHARDS, _ROWS, _ROW_BYTES = 100, 5, 6_000


def _text(seed: int) -> str:
    letters = np.random.default_rng(seed).integers(97, 123, _ROW_BYTES, np.uint8)
    return letters.tobytes().decode()


def _jsonl(shard: int, night: int) -> tuple[str, bytes]:
    rows = range(shard * _ROWS, (shard + 1) * _ROWS)
    lines = [json.dumps({"id": row, "text": _text(row + 1000 * night)}) for row in rows]
    return f"{shard}.jsonl", "\n".join(lines).encode()


def _parquet(shard: int, night: int) -> tuple[str, bytes]:
    rows = range(shard * _ROWS, (shard + 1) * _ROWS)
    table = pa.table({"id": rows, "text": [_text(row + 1000 * night) for row in rows]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none", use_dictionary=False)
    return f"{shard}.parquet", buffer.getvalue()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("write", [_jsonl, _parquet])
def test_a_night_of_a_hundredth_costs_a_hundredth(
    proxy: Proxy,
    bucket: str,
    tmp_path: Path,
    tiny_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    write: Callable[[int, int], tuple[str, bytes]],
) -> None:
    folder = Folder(f"{bucket}/docs")
    for shard in range(_SHARDS):
        folder.put(*write(shard, 0))
    size = sum(folder.sizes("").values())
    source = {"uri": folder.uri, "id": "id", "text": "text", "task": "retrieval.passage"}
    kind = write.__name__.removeprefix("_")
    # the output is on a disk, so what the proxy sends is the source
    spec = write_spec(tmp_path, tiny_checkpoint, source | {"format": kind})

    def night() -> dict[str, Any]:
        capsys.readouterr()
        proxy.sent = 0
        assert main(["nightly", str(spec), "--address", "none", "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    full = night()
    assert proxy.sent >= size
    folder.put(*write(7, 1))
    changed = night()
    assert changed["embedded"] == {"text": _ROWS}
    assert changed["found"]["carried"] == (_SHARDS - 1) * _ROWS
    assert changed["tokens"] <= 0.02 * full["tokens"]
    assert proxy.sent <= 0.05 * size, f"{proxy.sent / size:.1%}"
    assert night()["up_to_date"]
    assert proxy.sent <= 0.01 * size
