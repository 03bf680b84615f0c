"""The engine equals the oracle: every task, text and image, both outputs, two geometries, fp32.

The tolerances are absolute and tight on purpose. A wrong LoRA scale of 0.1% moves a single vector
by 3e-4 and an image span off by one by 3e-3; a cosine at 1e-3 sees neither. Rounding is 5e-7.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import Embeddings
from pipeline.tasks import TASKS
from tests.model.oracle import ADAPTER_AND_PREFIX, OracleEmbedding
from tests.model.parity_checkpoints import GEOMETRIES, engine_of, oracle_of, write_checkpoint
from tests.model.parity_items import IMAGES, ITEMS, SMALL_MAX_PIXELS, TEXTS, encoded, picture

SINGLE_ATOL = 1e-5
MULTI_ATOL = 2e-5
ALL_TASKS = list(ADAPTER_AND_PREFIX)


@pytest.fixture(scope="session", params=GEOMETRIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("parity"), request.param)


def assert_equal_to_oracle(
    got: Embeddings, expected: Sequence[OracleEmbedding], names: Sequence[str] | None = None
) -> None:
    """Compares everything and reports every difference, not only the first."""
    names = names or [str(i) for i in range(len(expected))]
    assert len(got.single) == len(got.n_tokens) == len(got.truncated) == len(expected)
    assert got.single.dtype == np.float32
    wrong = []
    for i, (name, right) in enumerate(zip(names, expected, strict=True)):
        if got.single[i].shape != right.single.shape:
            wrong.append(f"{name}: single {got.single[i].shape} for {right.single.shape}")
            continue
        # "not <" and never ">=": a NaN must fail.
        if not (difference := np.abs(got.single[i] - right.single).max()) < SINGLE_ATOL:
            wrong.append(f"{name}: single off by {difference:.1e}")
        if got.n_tokens[i] != right.n_tokens or bool(got.truncated[i]) != right.truncated:
            counts = f"{got.n_tokens[i]}, {got.truncated[i]}"
            wrong.append(f"{name}: {counts} for {right.n_tokens}, {right.truncated}")
        elif got.multi is not None:
            multi = got.multi[i]
            if multi.dtype != np.float32 or multi.shape != right.multi.shape:
                wrong.append(f"{name}: multi {multi.dtype} {multi.shape} for {right.multi.shape}")
            elif not (difference := np.abs(multi - right.multi).max()) < MULTI_ATOL:
                wrong.append(f"{name}: multi off by {difference:.1e}")
    assert not wrong, "\n".join(wrong)


def test_the_public_tasks_are_the_five_the_oracle_knows() -> None:
    assert {t.name: (t.adapter, t.prefix) for t in TASKS.values()} == ADAPTER_AND_PREFIX


@pytest.mark.parametrize("task", ALL_TASKS)
def test_texts_and_images_in_one_call_equal_the_oracle(checkpoint: Path, task: str) -> None:
    # Interleaved, so that text and image share packs and the order of the answer is seen.
    names = [n for pair in zip(TEXTS, IMAGES, strict=False) for n in pair]
    names += [n for n in ITEMS if n not in names]
    got = engine_of(checkpoint, task).embed([ITEMS[n] for n in names], multi=True)
    oracle = oracle_of(checkpoint)
    expected = [oracle.embed(ITEMS[n], task, max_pixels=SMALL_MAX_PIXELS) for n in names]
    assert_equal_to_oracle(got, expected, names)


def test_every_matryoshka_dim_equals_the_oracle_and_the_full_vector_cut_later(
    checkpoint: Path,
) -> None:
    task, names = "retrieval.passage", ["plain ASCII", "emoji with joiners", "RGBA", "RGB, tiny"]
    items = [ITEMS[n] for n in names]
    engine, oracle = engine_of(checkpoint, task), oracle_of(checkpoint)
    whole = engine.embed(items, multi=True)
    for dim in oracle.matryoshka_dims:
        got = engine.embed(items, dim=dim, multi=True)
        expected = [oracle.embed(i, task, dim=dim, max_pixels=SMALL_MAX_PIXELS) for i in items]
        assert_equal_to_oracle(got, expected, names)
        cut = whole.single[:, :dim]
        later = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        np.testing.assert_allclose(got.single, later, rtol=0, atol=1e-6)
        # Matryoshka is a matter of the single vector only.
        for with_dim, without in zip(got.multi, whole.multi, strict=True):
            np.testing.assert_allclose(with_dim, without, rtol=0, atol=5e-6)


@pytest.mark.parametrize("task", ["retrieval.query", "code.passage"])
def test_truncation_keeps_the_first_tokens_of_the_prefixed_text_and_says_so(
    checkpoint: Path, task: str
) -> None:
    oracle = oracle_of(checkpoint)
    texts = [TEXTS["plain ASCII"], "short", TEXTS["long"], TEXTS["vision tokens typed by the user"]]
    n = oracle.embed(texts[0], task).n_tokens
    # The limit just met, just missed, and one that leaves little more than the prefix.
    for max_length in (n, n - 1, 9):
        got = engine_of(checkpoint, task, max_length=max_length).embed(texts, multi=True)
        expected = [oracle.embed(t, task, max_length=max_length) for t in texts]
        assert_equal_to_oracle(got, expected)
        assert bool(got.truncated[0]) == (max_length < n)
        assert got.n_tokens[0] == min(n, max_length)


def test_a_character_cut_in_two_by_truncation_equals_the_oracle(checkpoint: Path) -> None:
    # Tokens are bytes or pieces of them: the limit may fall inside an emoji or a CJK character.
    task, text = "text-matching", TEXTS["emoji with joiners"]
    for max_length in range(8, 14):
        got = engine_of(checkpoint, task, max_length=max_length).embed([text], multi=True)
        expected = oracle_of(checkpoint).embed(text, task, max_length=max_length)
        assert_equal_to_oracle(got, [expected])


def test_images_under_the_pixel_bounds_of_the_checkpoint_equal_the_oracle(checkpoint: Path) -> None:
    # The bounds come from preprocessor_config.json; one image is above the upper one.
    task, oracle = "retrieval.passage", oracle_of(checkpoint)
    side = int(oracle.pixels["max_pixels"] ** 0.5)
    images = {"above": picture(side + 40, side + 9), "below": picture(20, 30)}
    got = engine_of(checkpoint, task, max_pixels=None).embed(list(images.values()), multi=True)
    expected = [oracle.embed(image, task) for image in images.values()]
    assert_equal_to_oracle(got, expected, list(images))


def test_a_single_vector_does_not_depend_on_asking_for_the_multi_vector(checkpoint: Path) -> None:
    items = [TEXTS["code"], IMAGES["L"], TEXTS["one letter"]]
    engine = engine_of(checkpoint, "code.query")
    alone, both = engine.embed(items), engine.embed(items, multi=True)
    assert alone.multi is None
    assert len(both.multi) == len(items)
    np.testing.assert_allclose(alone.single, both.single, rtol=0, atol=1e-6)


def test_user_text_with_special_tokens_differs_from_the_tokens_it_spells(checkpoint: Path) -> None:
    # If the text became the tokens, each of the four would count as one.
    text = TEXTS["vision tokens typed by the user"]
    got = engine_of(checkpoint, "retrieval.query").embed([text])
    plain = engine_of(checkpoint, "retrieval.query").embed(["a "])
    assert got.n_tokens[0] > plain.n_tokens[0] + 4 * 3


@pytest.mark.fault("image.orientation")
def test_exif_orientation_changes_nothing(checkpoint: Path) -> None:
    image = picture(150, 60, seed=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    items = [encoded(image, "PNG"), encoded(image, "PNG", exif=exif)]
    got = engine_of(checkpoint, "retrieval.query").embed(items)
    np.testing.assert_allclose(got.single[0], got.single[1], rtol=0, atol=1e-6)


def test_pil_objects_and_their_file_bytes_give_the_same_vectors(checkpoint: Path) -> None:
    image = IMAGES["RGBA"]
    got = engine_of(checkpoint, "retrieval.query").embed([image, encoded(image, "PNG")])
    np.testing.assert_allclose(got.single[0], got.single[1], rtol=0, atol=1e-6)
