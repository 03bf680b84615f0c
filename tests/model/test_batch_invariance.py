"""What an item gives does not depend on the items it is embedded with, nor on their order.

Neighbours share packs, so this is where a leak between segments would show: without isolation the
single vector moves by 0.2. The bounds leave room for another kernel on another shape, no more.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import Embeddings
from tests.model.parity_checkpoints import GEOMETRIES, engine_of, write_checkpoint
from tests.model.parity_items import IMAGES, TEXTS

TASK = "retrieval.passage"
POOL = [
    *(TEXTS[n] for n in ("one letter", "plain ASCII", "code", "emoji with joiners", "long")),
    TEXTS["vision tokens typed by the user"],
    *(IMAGES[n] for n in ("RGB, tiny", "RGBA", "CMYK, JPEG bytes", "RGB, a tall strip")),
]


@pytest.fixture(scope="session", params=GEOMETRIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("invariance"), request.param)


@pytest.fixture(scope="session")
def alone(checkpoint: Path) -> list[Embeddings]:
    """Each item of the pool embedded in a call of its own."""
    return [engine_of(checkpoint, TASK).embed([item], multi=True) for item in POOL]


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    # The fixtures are of the session and hold nothing that an example changes.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(chosen=st.lists(st.integers(0, len(POOL) - 1), min_size=2, max_size=9))
def test_an_item_gives_the_same_in_any_company_and_order(
    checkpoint: Path, alone: list[Embeddings], chosen: list[int]
) -> None:
    got = engine_of(checkpoint, TASK).embed([POOL[i] for i in chosen], multi=True)
    assert len(got.single) == len(got.multi) == len(chosen)
    for place, i in enumerate(chosen):
        np.testing.assert_allclose(got.single[place], alone[i].single[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.multi[place], alone[i].multi[0], rtol=0, atol=5e-6)
        assert got.n_tokens[place] == alone[i].n_tokens[0]
        assert bool(got.truncated[place]) == bool(alone[i].truncated[0])


def test_order_is_kept(checkpoint: Path) -> None:
    engine = engine_of(checkpoint, TASK)
    forth, back = engine.embed(POOL, multi=True), engine.embed(POOL[::-1], multi=True)
    np.testing.assert_allclose(forth.single, back.single[::-1], rtol=0, atol=1e-6)
    assert [len(m) for m in forth.multi] == [len(m) for m in back.multi][::-1]
    # And no two items of the pool are alike, so that a swap could not pass.
    distances = np.abs(forth.single[:, None] - forth.single[None]).max(axis=-1)
    assert (distances + np.eye(len(POOL)) > 1e-3).all()


def test_the_same_item_many_times_gives_the_same_many_times(checkpoint: Path) -> None:
    got = engine_of(checkpoint, TASK).embed([TEXTS["code"]] * 5 + [IMAGES["L"]] * 3, multi=True)
    np.testing.assert_allclose(got.single[:5], np.tile(got.single[0], (5, 1)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(got.single[5:], np.tile(got.single[5], (3, 1)), rtol=0, atol=1e-6)


def test_a_call_of_many_packs_gives_what_each_item_gives_alone(
    checkpoint: Path, alone: list[Embeddings]
) -> None:
    # Almost 60,000 tokens: more than a forward pass is likely to take in one go.
    chosen = [i % len(POOL) for i in range(60 * len(POOL))]
    got = engine_of(checkpoint, TASK).embed([POOL[i] for i in chosen])
    assert sum(got.n_tokens) > 55_000
    right = np.stack([alone[i].single[0] for i in chosen])
    np.testing.assert_allclose(got.single, right, rtol=0, atol=1e-6)
