"""A job that is nearly done reads of its source what is left, and little more."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import open_dataset
from pipeline.folder import Folder
from pipeline.records import Records
from pipeline.work import Receipt
from tests.faults.proxy import Proxy
from tests.jobs import embed, write_spec

pytestmark = pytest.mark.s3

_ROWS, _ROW_BYTES = 100, 20_000
_ROW_GROUP = 500_000
"""Bytes: a footer is read for each, so that small ones would be mostly footers."""


def _text(row: int, size: int = _ROW_BYTES) -> str:
    letters = np.random.default_rng(row).integers(97, 123, size, np.uint8)
    return letters.tobytes().decode()


def _parquet(folder: Folder) -> dict[str, Any]:
    table = pa.table({"id": range(_ROWS), "text": [_text(row, _ROW_GROUP) for row in range(_ROWS)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=1, compression="none")
    folder.put("docs.parquet", buffer.getvalue())
    return {"format": "parquet", "id": "id", "text": "text"}


def _jsonl(folder: Folder) -> dict[str, Any]:
    lines = [json.dumps({"id": row, "text": _text(row)}) for row in range(_ROWS)]
    folder.put("docs.jsonl", "\n".join(lines).encode())
    return {"format": "jsonl", "id": "id", "text": "text"}


def _webdataset(folder: Folder) -> dict[str, Any]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for row in range(_ROWS):
            member = tarfile.TarInfo(f"{row}.txt")
            member.size = _ROW_BYTES
            archive.addfile(member, io.BytesIO(_text(row).encode()))
    folder.put("docs.tar", buffer.getvalue())
    return {"format": "webdataset"}


def _images(folder: Folder) -> dict[str, Any]:
    for row in range(_ROWS):
        noise = np.random.default_rng(row).integers(0, 255, (160, 160, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "PNG")
        folder.put(f"{row}.png", buffer.getvalue())
    return {"format": "images"}


class Killed(BaseException):
    """Not an error that anybody would catch."""


@pytest.mark.parametrize("write", [_parquet, _jsonl, _webdataset, _images])
def test_a_job_of_which_a_twentieth_is_left_reads_at_most_six_hundredths_of_its_source(
    proxy: Proxy, bucket: str, tmp_path: Path, tiny_checkpoint: Path, write: Any
) -> None:
    folder = Folder(f"{bucket}/docs")
    source = write(folder) | {"uri": folder.uri, "task": "retrieval.passage"}
    size = sum(folder.sizes("").values())
    # the output is on a disk, so what the proxy sends is the source
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    sliced = ("--set", "compute.unit_rows=1", "--set", "limits.quarantine_share=0")
    original, left = Records.record, [_ROWS - _ROWS // 20]

    def record(self: Records, receipt: Receipt, revision: int) -> Receipt:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return original(self, receipt, revision)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Records, "record", record)
        embed(spec, *sliced)
    first, proxy.sent = proxy.sent, 0
    assert first >= 0.9 * size
    assert embed(spec, *sliced) == 0
    assert proxy.sent <= 0.06 * size, f"{proxy.sent / size:.1%}"
    assert open_dataset(str(tmp_path / "out")).count() == _ROWS
    proxy.sent = 0
    assert embed(spec, *sliced) == 0
    assert proxy.sent <= 0.01 * size, "a job that is done opens nothing of its source"
