"""How large a unit is."""

import pytest

from pipeline.shards.shape import UnitSize
from pipeline.source_spec import SourceSpec

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
