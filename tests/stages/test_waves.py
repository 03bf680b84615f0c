"""Very many units are done in waves, each unit once, and every wave has something for each pool."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages import waves as module
from pipeline.stages.waves import waves
from pipeline.storage import StoredObject
from pipeline.work import Segment, WorkUnit

_SEGMENT = Segment(source=0, shard=StoredObject(uri="x", size=1, etag=""), first_row=0, rows=1)


def _units(adapters: str) -> list[WorkUnit]:
    return [
        WorkUnit(shard="", segment=_SEGMENT, reading="", adapter=adapter, start=at, stop=at + 1)
        for at, adapter in enumerate(adapters)
    ]


@given(st.text("abc", min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 4))
def test_every_unit_is_in_one_wave_and_no_wave_is_too_large(
    adapters: str, most: int, actors: int
) -> None:
    units = _units(adapters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "UNITS", most)
        patch.setattr(module, "UNITS_OF_ACTOR", 2)
        found = waves(units, actors)
    assert sorted((u for wave in found for u in wave), key=lambda u: u.start) == units
    bound, kinds = max(most, 2 * actors), len(set(adapters))
    assert len(found) == -(-len(units) // bound)
    shares = [Counter(unit.adapter for unit in wave) for wave in found]
    for adapter in set(adapters):
        counts = [share[adapter] for share in shares]
        assert max(counts) - min(counts) <= 1
    # by one of each adapter more, where its units do not divide
    assert max(map(len, found)) <= bound + kinds


def test_a_corpus_of_usual_size_is_one_wave_and_a_hundred_million_rows_are_six() -> None:
    assert [len(waves(_units("a" * count), 8)) for count in (1, 16_384, 16_385)] == [1, 1, 2]
    sizes = [len(wave) for wave in waves(_units("a" * 97_700), 8)]
    assert len(sizes) == 6
    assert max(sizes) - min(sizes) <= 1
    # so many that each actor has at least an hour's work
    assert len(waves(_units("a" * 97_700), 1000)) == 1
