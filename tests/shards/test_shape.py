"""How large a unit is."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.shards.shape import UnitSize
from pipeline.source_spec import SourceSpec
from tests.shards import read_all

_MIB = 1 << 20


def _source(**mapped: str) -> SourceSpec:
    return SourceSpec.model_validate(
        {"uri": "x", "format": "parquet", "id": "id", "task": "code.query"} | mapped
    )


@pytest.mark.parametrize(
    ("mapped", "max_pixels", "row_bytes", "rows"),
    [
        ({"text": "t"}, 602112, 0, 1024),
        ({"text": "t"}, 602112, 100, 1024),
        ({"text": "t"}, 602112, 0.5 * _MIB, 8),
        ({"text": "t"}, 20_000_000, 0, 1024),
        ({"image": "i"}, 602112, 0, 128),
        ({"image": "i"}, 602112, 4 * _MIB, 16),
        ({"image": "i"}, 20_000_000, 0, 4),
        # large as it may become and large as it is: the smaller counts
        ({"image": "i"}, 20_000_000, 32 * _MIB, 2),
        ({"image": "i", "text": "t"}, 20_000_000, 1000, 4),
        ({"image": "i"}, 20_000_000, 900 * _MIB, 1),
        ({"image": "i"}, 1 << 40, 0, 1),
    ],
)
def test_a_unit_fits_into_memory(
    mapped: dict[str, str], max_pixels: int, row_bytes: float, rows: int
) -> None:
    assert UnitSize(rows=None, max_pixels=max_pixels).rows_of(_source(**mapped), row_bytes) == rows


def test_rows_that_were_asked_for_are_not_judged() -> None:
    assert UnitSize(rows=300, max_pixels=1 << 40).rows_of(_source(image="i"), 900 * _MIB) == 300


@pytest.mark.parametrize("kind", ["jsonl", "webdataset"])
def test_a_unit_of_large_lines_or_samples_has_few_of_them(tmp_path: Path, kind: str) -> None:
    # such a unit is held whole: a thousand of these would be a gigabyte
    text = b"w" * (1 << 20)
    source: dict[str, Any] = {"uri": str(tmp_path / "a"), "format": kind, "task": "code.query"}
    if kind == "jsonl":
        source |= {"id": "id", "text": "text"}
        lines = (b'{"id": %d, "text": "%s"}\n' % (n, text) for n in range(9))
        (tmp_path / "a").write_bytes(b"".join(lines))
    else:
        source |= {"image": None}
        with tarfile.open(tmp_path / "a", "w") as archive:
            for n in range(9):
                member = tarfile.TarInfo(f"{n}.txt")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text))
    found = read_all(source)
    assert found.plan.rows == 9
    assert max(unit.rows for unit, _ in found.units) <= 4
