"""A result never depends on the neighbours in the pack, nor on how a call is cut into packs.

Items are made of random tokens, so that any length can be asked for, and of small images. What an
item gives alone is the reference; the bounds leave room for another kernel on another shape.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.errors import Reason, SpecError
from pipeline.model.checkpoint import Checkpoint, open_checkpoint
from pipeline.model.embedder import Embedder
from pipeline.model.engine import Engine
from pipeline.model.geometry import TINY
from pipeline.model.outputs import Embeddings
from pipeline.model.processor import MAX_LENGTH, PreparedItem, Processor
from pipeline.model.staging import Pack
from tests.model.parity_checkpoints import GEOMETRIES, write_checkpoint
from tests.model.parity_items import SMALL_MAX_PIXELS, TEXTS, picture

ADAPTER = "retrieval"
SINGLE_ATOL, MULTI_ATOL = 1e-6, 5e-6
IMAGES = [picture(56, 56), picture(11, 300, seed=1), picture(140, 90, seed=2), picture(200, 150)]
SMALL_CALL = 1024
"""A call of no more tokens is one pack when the budget is still to be measured."""

What = tuple[str, int]
"""("text", how many tokens) or ("image", which of IMAGES)."""
Mix = list[tuple[str, int]]


@dataclass(frozen=True, kw_only=True)
class Room:
    """One checkpoint, and what items give alone, each computed once."""

    checkpoint: Checkpoint
    processor: Processor
    single_file: Engine
    """Embeds one item a call."""
    _alone: dict[tuple[What, int], Embeddings] = field(default_factory=dict)

    def item(self, what: What, seed: int = 0) -> PreparedItem:
        kind, size = what
        return self.processor.image(IMAGES[size]) if kind == "image" else text(size, seed)

    def alone(self, what: What, seed: int = 0) -> Embeddings:
        key = (what, seed)
        if key not in self._alone:
            self._alone[key] = self.single_file.embed([self.item(*key)], multi=True)
        return self._alone[key]

    def engine(self, token_budget: int) -> Engine:
        return engine_on(self.checkpoint, token_budget)


def engine_on(checkpoint: Checkpoint, token_budget: int) -> Engine:
    return Engine(checkpoint, ADAPTER, device="cpu", dtype="float32", token_budget=token_budget)


def text(length: int, seed: int = 0) -> PreparedItem:
    """A text of random tokens; the first 256 are bytes in every tokenizer."""
    ids = np.random.default_rng([length, seed]).integers(0, 256, length)
    return PreparedItem(token_ids=ids.astype(np.int32), pixels=None, truncated=False)


@pytest.fixture(scope="module", params=GEOMETRIES)
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Room:
    return open_room(write_checkpoint(tmp_path_factory.mktemp("neighbours"), request.param))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return open_room(write_checkpoint(tmp_path_factory.mktemp("neighbours"), "tiny"))


def open_room(directory: Path) -> Room:
    checkpoint = open_checkpoint(directory)
    return Room(
        checkpoint=checkpoint,
        processor=Processor(checkpoint, max_pixels=SMALL_MAX_PIXELS),
        single_file=engine_on(checkpoint, 8192),
    )


@dataclass(kw_only=True)
class Watch:
    """The packs that went through a network, and what is done to them on the way."""

    packs: list[Pack] = field(default_factory=list)
    fails: list[Exception | None] = field(default_factory=list)
    """What becomes of the next passes: raised, or None for nothing."""
    most: int | None = None
    """Passes of a higher cost run out of memory."""

    @property
    def costs(self) -> list[int]:
        return [cost_of(pack) for pack in self.packs]


def cost_of(pack: Pack) -> int:
    patches = 0 if pack.images is None else len(pack.images.positions_N2)
    return sum(pack.lengths) + patches


@contextmanager
def watched(engine: Engine, **options: object) -> Iterator[Watch]:
    """Watch the forward passes of an engine."""
    watch, forward = Watch(**options), engine.backbone.forward

    def seen(pack: Pack) -> Tensor:
        watch.packs.append(pack)
        error = watch.fails.pop(0) if watch.fails else None
        if error is not None:
            raise error
        if watch.most is not None and cost_of(pack) > watch.most:
            raise torch.OutOfMemoryError(f"{cost_of(pack)} above {watch.most}")
        return forward(pack)

    engine.backbone.forward = seen
    yield watch
    engine.backbone.forward = forward


def assert_as_alone(room: Room, found: Embeddings, mix: Sequence[What]) -> None:
    """Every item, in input order, gave what it gives alone."""
    assert found.multi is not None
    assert len(found.single) == len(found.multi) == len(found.n_tokens) == len(mix)
    assert found.faults == {}
    for place, what in enumerate(mix):
        alone = room.alone(what, place)
        assert alone.multi is not None
        assert found.n_tokens[place] == alone.n_tokens[0]
        np.testing.assert_allclose(found.single[place], alone.single[0], rtol=0, atol=SINGLE_ATOL)
        np.testing.assert_allclose(found.multi[place], alone.multi[0], rtol=0, atol=MULTI_ATOL)


def items_of(room: Room, mix: Sequence[What]) -> list[PreparedItem]:
    return [room.item(what, place) for place, what in enumerate(mix)]


def costs_of(items: Sequence[PreparedItem]) -> list[int]:
    """Tokens, and patches of 14 x 14 pixels."""
    pixels = [0 if item.pixels is None else item.pixels[..., 0].size for item in items]
    return [len(item.token_ids) + n // 196 for item, n in zip(items, pixels, strict=True)]


TEXT = st.one_of(
    st.tuples(st.just("text"), st.integers(1, 40)),
    st.tuples(st.just("text"), st.integers(1, 700)),
    st.tuples(st.just("text"), st.sampled_from([1, 16, 512])),
)
IMAGE = st.tuples(st.just("image"), st.integers(0, len(IMAGES) - 1))
MIXES = st.lists(st.one_of(TEXT, TEXT, IMAGE), min_size=1, max_size=14)
BUDGETS = st.one_of(st.integers(1, 20_000), st.integers(1, 1500))
EDGES = [
    *[("text", 1), ("image", 1), ("text", 700), ("text", 1), ("image", 3), ("image", 1)],
    *[("text", 513), ("text", 16), ("image", 0), ("text", 512), ("text", 512), ("text", 2)],
]
# the fixture is of the module and only remembers what items give alone
of_one_load = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


# Company ----------------------------------------------------------------------------------------


@of_one_load
@example(mix=EDGES, token_budget=1)
@example(mix=EDGES, token_budget=600)
@example(mix=EDGES, token_budget=20_000)
@given(mix=MIXES, token_budget=BUDGETS)
def test_an_item_gives_what_it_gives_alone_in_any_mixture_and_any_packs(
    room: Room, mix: Mix, token_budget: int
) -> None:
    found = room.engine(token_budget).embed(items_of(room, mix), multi=True)
    assert_as_alone(room, found, mix)


@of_one_load
@given(mix=st.lists(IMAGE, min_size=2, max_size=6))
def test_images_side_by_side_give_what_each_gives_alone(room: Room, mix: Mix) -> None:
    # windows and whole images of all of them pass through the vision tower together
    engine = room.engine(20_000)
    with watched(engine) as watch:
        found = engine.embed(items_of(room, mix), multi=True)
    assert len(watch.packs) == 1
    assert_as_alone(room, found, mix)


def test_what_items_give_is_far_apart(room: Room) -> None:
    # or results in another order could pass
    mix = [*dict.fromkeys(EDGES)]
    singles = np.stack([room.alone(what, place).single[0] for place, what in enumerate(mix)])
    distances = np.abs(singles[:, None] - singles[None]).max(axis=-1)
    assert (distances + np.eye(len(mix)) > 1e-2).all()


@of_one_load
@given(mix=st.lists(st.one_of(TEXT, IMAGE), min_size=3, max_size=25), token_budget=BUDGETS)
def test_a_pack_above_the_budget_holds_one_item(tiny: Room, mix: Mix, token_budget: int) -> None:
    mix = [("text", SMALL_CALL), *mix]
    items = items_of(tiny, mix)
    engine = tiny.engine(token_budget)
    assert engine.token_budget == token_budget
    with watched(engine) as watch:
        engine.embed(items)
    for pack, cost in zip(watch.packs, watch.costs, strict=True):
        assert cost <= token_budget or len(pack.lengths) == 1
    assert sum(watch.costs) == sum(costs_of(items))
    # and the budget is used: no two packs would have fitted into one
    smallest = sorted(watch.costs)[:2]
    assert len(smallest) == 1 or sum(smallest) > token_budget
    assert engine.token_budget == token_budget


def test_a_small_call_keeps_to_the_budget_too(tiny: Room) -> None:
    engine = tiny.engine(100)
    with watched(engine) as watch:
        engine.embed([text(60), text(60), text(60)])
    assert watch.costs == [60, 60, 60]


def test_the_meter_counts_what_went_through(tiny: Room) -> None:
    items = items_of(tiny, EDGES)
    engine = tiny.engine(900)
    with watched(engine) as watch:
        engine.embed(items)
    meter = engine.meter
    tokens = sum(len(item.token_ids) for item in items)
    assert (meter.packs, meter.items) == (len(watch.packs), len(items))
    assert meter.tokens == tokens
    assert meter.patches == sum(costs_of(items)) - tokens
    assert meter.padding == sum(pack.padding for pack in watch.packs)
    assert meter.busy_seconds > 0
    meter.reset()
    assert (meter.packs, meter.items, meter.tokens, meter.patches, meter.padding) == (0,) * 5
    engine.embed([text(3)])
    assert (meter.packs, meter.items, meter.tokens, meter.padding) == (1, 1, 3, 13)


# None and the largest ---------------------------------------------------------------------------


@pytest.mark.parametrize("token_budget", [1, 20_000])
def test_no_items_give_no_vectors(tiny: Room, token_budget: int) -> None:
    engine = tiny.engine(token_budget)
    with watched(engine) as watch:
        found = engine.embed([], dims=[16, 64], multi=True)
    assert watch.packs == []
    assert {dim: single.shape for dim, single in found.singles.items()} == {
        16: (0, 16),
        64: (0, 64),
    }
    assert found.multi == []
    assert found.faults == {}
    assert found.n_tokens.shape == found.truncated.shape == (0,)
    assert engine.embed([]).multi is None


def test_a_text_of_the_greatest_length_passes_alone_above_the_budget(tiny: Room) -> None:
    mix: Mix = [("text", 30), ("image", 1), ("text", MAX_LENGTH), ("text", 600)]
    items = items_of(tiny, mix)
    engine = tiny.engine(20_000)
    with watched(engine) as watch:
        found = engine.embed(items, multi=True)
    assert found.multi is not None
    assert watch.costs == [MAX_LENGTH, sum(costs_of(items)) - MAX_LENGTH]
    assert watch.packs[0].lengths == (MAX_LENGTH,)
    long = found.multi[2]
    assert found.n_tokens[2] == len(long) == MAX_LENGTH
    # a decoder is causal: its first tokens cannot know how long the text goes on
    beginning = items[2].token_ids[:600]
    start = PreparedItem(token_ids=beginning, pixels=None, truncated=False)
    expected = tiny.single_file.embed([start], multi=True).multi
    assert expected is not None
    np.testing.assert_allclose(long[: len(beginning)], expected[0], rtol=0, atol=MULTI_ATOL)
    assert abs(np.linalg.norm(found.single[2].astype(np.float64)) - 1) < 1e-6
    for place in (0, 1, 3):
        alone = tiny.alone(mix[place], place)
        np.testing.assert_allclose(found.single[place], alone.single[0], rtol=0, atol=SINGLE_ATOL)


def test_an_image_of_several_megapixels_passes_alone_above_the_budget(tiny: Room) -> None:
    large = Processor(tiny.checkpoint, max_pixels=4_000_000).image(picture(2016, 1500))
    assert large.pixels is not None
    assert large.pixels.shape == (1512, 2016, 3)
    patches = 1512 * 2016 // 196
    mix: Mix = [("text", 30), ("image", 1), ("image", 0), ("image", 3)]
    items = items_of(tiny, mix)
    items[2] = large
    engine = tiny.engine(2000)
    with watched(engine) as watch:
        found = engine.embed(items, multi=True)
    assert found.multi is not None
    assert watch.costs[0] == patches + len(large.token_ids) > 19_000
    assert watch.packs[0].lengths == (len(large.token_ids),)
    assert len(found.multi[2]) == len(large.token_ids) > patches // 4
    again = tiny.single_file.embed([large], multi=True)
    np.testing.assert_allclose(found.single[2], again.single[0], rtol=0, atol=SINGLE_ATOL)
    for place in (0, 1, 3):
        alone = tiny.alone(mix[place], place)
        np.testing.assert_allclose(found.single[place], alone.single[0], rtol=0, atol=SINGLE_ATOL)


# Memory -----------------------------------------------------------------------------------------


@of_one_load
@example(mix=EDGES, token_budget=20_000, most=750)
@example(mix=EDGES, token_budget=1100, most=1000)
@given(mix=MIXES, token_budget=st.integers(1, 20_000), most=st.integers(750, 3000))
def test_a_pack_that_does_not_fit_is_halved_and_its_items_do_not_notice(
    tiny: Room, mix: Mix, token_budget: int, most: int
) -> None:
    items = items_of(tiny, mix)
    engine = tiny.engine(token_budget)
    with watched(engine, most=most) as watch:
        found = engine.embed(items, multi=True)
    assert_as_alone(tiny, found, mix)
    if any(cost > most for cost in watch.costs):
        assert engine.token_budget <= max(watch.costs) // 2


@of_one_load
@example(mix=EDGES, token_budget=20_000, most=300)
@given(mix=MIXES, token_budget=st.integers(1, 20_000), most=st.integers(1, 600))
def test_an_item_that_does_not_fit_alone_is_given_up_and_no_other(
    tiny: Room, mix: Mix, token_budget: int, most: int
) -> None:
    items = items_of(tiny, mix)
    costs = costs_of(items)
    engine = tiny.engine(token_budget)
    with watched(engine, most=most):
        found = engine.embed(items, multi=True)
    assert found.multi is not None
    assert set(found.faults) == {place for place, cost in enumerate(costs) if cost > most}
    for place, fault in found.faults.items():
        assert fault.reason == Reason.OOM
        assert str(costs[place]) in str(fault)
        assert not found.single[place].any()
        assert len(found.multi[place]) == 0
    for place in set(range(len(mix))) - set(found.faults):
        alone = tiny.alone(mix[place], place)
        assert alone.multi is not None
        np.testing.assert_allclose(found.single[place], alone.single[0], rtol=0, atol=SINGLE_ATOL)
        np.testing.assert_allclose(found.multi[place], alone.multi[0], rtol=0, atol=MULTI_ATOL)


@of_one_load
@example(mix=EDGES, token_budget=900, before=1)
@given(mix=MIXES, token_budget=BUDGETS, before=st.integers(0, 4))
def test_memory_that_is_short_for_one_pass_changes_no_result(
    tiny: Room, mix: Mix, token_budget: int, before: int
) -> None:
    # the pack after the one that fails may already be under way
    engine = tiny.engine(token_budget)
    with watched(engine, fails=[None] * before + [torch.OutOfMemoryError("for now")]):
        found = engine.embed(items_of(tiny, mix), multi=True)
    assert_as_alone(tiny, found, mix)


def test_an_item_that_fits_once_memory_is_given_back_is_not_given_up(tiny: Room) -> None:
    engine = tiny.engine(20_000)
    with watched(engine, fails=[torch.OutOfMemoryError("for now")]) as watch:
        found = engine.embed([text(40)], multi=True)
    assert len(watch.packs) == 2
    assert_as_alone(tiny, found, [("text", 40)])


def test_an_error_other_than_of_memory_is_not_swallowed(tiny: Room) -> None:
    engine = tiny.engine(500)
    error = RuntimeError("an illegal memory access")
    with watched(engine, fails=[error]), pytest.raises(RuntimeError) as raised:
        engine.embed([text(600), text(700)])
    assert raised.value is error
    # and the engine is none the worse for it
    assert_as_alone(tiny, engine.embed([text(40)], multi=True), [("text", 40)])


def test_a_budget_that_was_lowered_once_fits_from_then_on(tiny: Room) -> None:
    engine = tiny.engine(4096)
    with watched(engine, most=600) as watch:
        for _ in range(4):
            engine.embed([text(300), text(300), text(300)])
    assert sum(cost > 600 for cost in watch.costs) == 1
    assert engine.token_budget == 450


# Sizes of the single vectors --------------------------------------------------------------------


def test_several_sizes_at_once_are_the_full_vector_cut_and_normalised_again(room: Room) -> None:
    items = items_of(room, EDGES)
    dims = room.checkpoint.matryoshka_dims
    engine = room.engine(900)
    with watched(engine) as watch:
        found = engine.embed(items, dims=dims[::-1], multi=True)
    assert sum(len(pack.lengths) for pack in watch.packs) == len(items), "one pass for all sizes"
    assert list(found.singles) == list(dims[::-1])
    full = engine.embed(items).single
    assert found.single.shape == full.shape
    for dim, single in found.singles.items():
        assert single.dtype == np.float32
        cut = full[:, :dim].astype(np.float64)
        expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        np.testing.assert_allclose(single, expected, rtol=0, atol=SINGLE_ATOL)
    assert_as_alone(room, found, EDGES)


def test_no_sizes_give_no_single_vectors(tiny: Room) -> None:
    items = items_of(tiny, EDGES)
    engine = tiny.engine(900)
    found = engine.embed(items, dims=[], multi=True)
    assert found.singles == {}
    both = engine.embed(items, multi=True)
    assert found.multi is not None and both.multi is not None
    for alone, beside in zip(found.multi, both.multi, strict=True):
        np.testing.assert_array_equal(alone, beside)


def test_a_size_that_is_not_the_checkpoints_is_refused_before_a_pass(tiny: Room) -> None:
    with watched(tiny.single_file) as watch, pytest.raises(SpecError, match="17 is not one of"):
        tiny.single_file.embed([text(5)], dims=[16, 17])
    assert watch.packs == []


def test_the_embedder_gives_the_sizes_asked_for(tiny: Room) -> None:
    embedder = Embedder(tiny.processor, tiny.single_file, "retrieval.passage")
    items = [TEXTS["code"], IMAGES[2], TEXTS["one letter"]]
    several, full = embedder.embed(items, dim=[32, 16]), embedder.embed(items)
    assert {dim: v.shape for dim, v in several.singles.items()} == {32: (3, 32), 16: (3, 16)}
    assert full.single.shape == (3, TINY.hidden)
    one = embedder.embed(items, dim=16)
    np.testing.assert_array_equal(one.single, several.singles[16])


def test_multi_vectors_in_float16_are_those_in_float32_rounded(tiny: Room) -> None:
    items = items_of(tiny, EDGES)
    exact = tiny.single_file.embed(items, multi=True)
    rounded = tiny.single_file.embed(items, multi=True, multi_dtype="float16")
    assert exact.multi is not None and rounded.multi is not None
    for ours, theirs in zip(rounded.multi, exact.multi, strict=True):
        assert ours.dtype == np.float16
        np.testing.assert_array_equal(ours, theirs.astype(np.float16))
    np.testing.assert_array_equal(rounded.single, exact.single)
