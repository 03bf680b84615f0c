"""What the vision tower is told of its images is what the library works out for itself.

Legend: N image patches, M merged patches, P values of a patch.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from pipeline.model.checkpoint import open_checkpoint
from pipeline.model.images import Pixels
from pipeline.model.vision import Layout, PatchGeometry, PatchProjection

CPU = torch.device("cpu")
MEAN = [0.48145466, 0.4578275, 0.40821073]
DEVIATION = [0.26862954, 0.26130258, 0.27577711]

Sizes = list[tuple[int, int]]
"""Rows and columns of merged patches of each image."""
SIZES = st.lists(st.tuples(st.integers(1, 13), st.integers(1, 13)), min_size=1, max_size=5)
# of a patch, of a merge block in patches, of a window in pixels; the official ones first
CUTS = st.sampled_from([(14, 2, 112), (14, 2, 112), (14, 2, 56), (4, 3, 40), (2, 1, 7)])


def geometry(patch: int = 14, merge: int = 2, window: int = 112) -> PatchGeometry:
    vision = {"patch_size": patch, "spatial_merge_size": merge, "window_size": window}
    settings = SimpleNamespace(
        config={"vision_config": vision},
        preprocessor={"image_mean": MEAN, "image_std": DEVIATION},
    )
    return PatchGeometry(cast(Any, settings), CPU)


def blank(size: tuple[int, int], side: int) -> Pixels:
    """An image of that many merged patches; only its size is looked at."""
    return np.broadcast_to(np.uint8(0), (size[0] * side, size[1] * side, 3))


def grids(sizes: Sizes, merge: int) -> Tensor:
    """As the library wants them: frames, rows and columns of patches."""
    return torch.tensor([[1, rows * merge, columns * merge] for rows, columns in sizes])


def lay_out(sizes: Sizes, cut: tuple[int, int, int] = (14, 2, 112)) -> Layout:
    patch, merge, _ = cut
    return geometry(*cut).lay_out([blank(size, patch * merge) for size in sizes])


def windows(order_M: Any, lengths: Any, merge: int) -> list[frozenset[int]]:
    """Each window as a set of merged patches."""
    ends = np.cumsum(np.asarray(lengths) // merge**2)
    parts = np.split(np.asarray(order_M), ends)
    assert len(parts.pop()) == 0
    return [frozenset(part.tolist()) for part in parts]


# The layout -------------------------------------------------------------------------------------


@example(sizes=[(4, 4)], cut=(14, 2, 112))
@example(sizes=[(9, 5), (1, 1), (9, 5), (5, 9)], cut=(14, 2, 112))
@given(sizes=SIZES, cut=CUTS)
def test_windows_are_those_of_the_library(sizes: Sizes, cut: tuple[int, int, int]) -> None:
    patch, merge, window = cut
    layout = lay_out(sizes, cut)
    order, bounds = get_vision_window_index(grids(sizes, merge), merge, window, patch)
    theirs = windows(order, bounds.diff(), merge)
    ours = windows(layout.windows_M, layout.window_lengths, merge)
    assert len(ours) == len(theirs)
    assert set(ours) == set(theirs)


@given(sizes=SIZES, cut=CUTS)
def test_a_layout_orders_every_merged_patch_once(sizes: Sizes, cut: tuple[int, int, int]) -> None:
    layout = lay_out(sizes, cut)
    merged = sum(rows * columns for rows, columns in sizes)
    assert sorted(layout.windows_M.tolist()) == list(range(merged))
    patches = merged * cut[1] ** 2
    assert layout.window_lengths.sum() == layout.image_lengths.sum() == patches
    assert len(layout.positions_N2) == patches
    assert (layout.window_lengths > 0).all()


@given(sizes=SIZES, cut=CUTS)
def test_positions_and_bounds_of_images_are_those_of_the_library(
    sizes: Sizes, cut: tuple[int, int, int]
) -> None:
    layout, grid = lay_out(sizes, cut), grids(sizes, cut[1])
    theirs = get_vision_position_ids(grid, cut[1])
    np.testing.assert_array_equal(layout.positions_N2, theirs.numpy())
    bounds = [0, *np.cumsum(layout.image_lengths)]
    assert bounds == get_vision_cu_seqlens(grid).tolist()


@given(sizes=SIZES, cut=CUTS)
def test_windows_of_an_image_come_by_size_with_equal_ones_together(
    sizes: Sizes, cut: tuple[int, int, int]
) -> None:
    layout = lay_out(sizes, cut)
    ends = np.cumsum(layout.window_lengths)
    for start, length in zip(
        np.cumsum([0, *layout.image_lengths[:-1]]), layout.image_lengths, strict=True
    ):
        own = layout.window_lengths[(ends > start) & (ends <= start + length)]
        assert own.sum() == length
        assert own.tolist() == sorted(own, reverse=True)


@given(sizes=SIZES, cut=CUTS)
def test_several_images_are_laid_out_as_each_is_alone(
    sizes: Sizes, cut: tuple[int, int, int]
) -> None:
    together = lay_out(sizes, cut)
    patches = merged = windows_before = 0
    for place, (rows, columns) in enumerate(sizes):
        alone = lay_out([(rows, columns)], cut)
        n, m, w = len(alone.positions_N2), rows * columns, len(alone.window_lengths)
        for ours, theirs in (
            (together.positions_N2[patches : patches + n], alone.positions_N2),
            (together.windows_M[merged : merged + m], alone.windows_M + merged),
            (together.window_lengths[windows_before:][:w], alone.window_lengths),
            (together.image_lengths[place : place + 1], alone.image_lengths),
        ):
            np.testing.assert_array_equal(ours, theirs)
        patches, merged, windows_before = patches + n, merged + m, windows_before + w
    assert patches == len(together.positions_N2)
    assert windows_before == len(together.window_lengths)


def test_a_layout_is_not_changed_through_one_that_was_given_out() -> None:
    # layouts are kept for each size of image
    first = lay_out([(5, 6)])
    kept = first.windows_M.copy()
    first.windows_M[:] = 0
    first.positions_N2[:] = 0
    np.testing.assert_array_equal(lay_out([(5, 6)]).windows_M, kept)
    assert lay_out([(5, 6)]).positions_N2.any()


def test_the_sizes_come_from_the_checkpoint(tiny_checkpoint: Path) -> None:
    cut = PatchGeometry(open_checkpoint(tiny_checkpoint), CPU)
    assert (cut.patch, cut.merge) == (14, 2)
    image = blank((5, 3), 28)
    assert cut.grid(image) == (10, 6)
    assert cut.patches(image) == 60
    # 112 pixels are 4 merged patches
    assert cut.lay_out([image]).window_lengths.tolist() == [48, 12]


# The patches ------------------------------------------------------------------------------------


def patch_by_patch(pixels: Pixels, patch: int, merge: int) -> np.ndarray:
    """One loop for each level: rows and columns of merge blocks, then of patches in them."""
    found = []
    for top in range(0, pixels.shape[0], patch * merge):
        for left in range(0, pixels.shape[1], patch * merge):
            for y in range(top, top + patch * merge, patch):
                for x in range(left, left + patch * merge, patch):
                    values_yxc = pixels[y : y + patch, x : x + patch] / 255.0
                    normal_yxc = (values_yxc - np.array(MEAN)) / np.array(DEVIATION)
                    found.append(normal_yxc.transpose(2, 0, 1).reshape(-1))
    return np.stack(found)


@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    cut=st.sampled_from([(14, 2, 112), (4, 3, 40), (2, 1, 8)]),
    seed=st.integers(0, 2**31),
)
def test_patches_are_cut_block_by_block_and_normalised(
    size: tuple[int, int], cut: tuple[int, int, int], seed: int
) -> None:
    patch, merge, _ = cut
    shape = (size[0] * patch * merge, size[1] * patch * merge, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    found_NP = geometry(*cut).cut(torch.from_numpy(pixels))
    assert found_NP.dtype == torch.float32
    expected_NP = patch_by_patch(pixels, patch, merge)
    np.testing.assert_allclose(found_NP.numpy(), expected_NP, rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [32, 48])
def test_the_projection_is_the_stored_convolution_over_a_still_image(width: int) -> None:
    random = torch.Generator().manual_seed(3)
    stored = Qwen2_5_VisionPatchEmbed(patch_size=14, temporal_patch_size=2, embed_dim=width)
    with torch.no_grad():
        # the frames differ, or one of them twice would do as well
        stored.proj.weight.copy_(torch.randn(stored.proj.weight.shape, generator=random))
        patches_NP = torch.randn(40, 3 * 14 * 14, generator=random)
        still = patches_NP.view(40, 3, 1, 14, 14).expand(-1, -1, 2, -1, -1).reshape(40, -1)
        expected = stored(still)
        found = _projection(stored.proj.weight)(patches_NP)
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)


def test_the_projection_is_summed_before_it_is_rounded() -> None:
    weight = torch.randn(8, 3, 2, 14, 14, generator=torch.Generator().manual_seed(4))
    expected = (weight[:, :, 0] + weight[:, :, 1]).flatten(1).bfloat16()
    assert torch.equal(PatchProjection.folded(weight).bfloat16(), expected)


def test_what_was_folded_is_stored_so_that_it_folds_to_the_same() -> None:
    weight = torch.randn(8, 3, 2, 14, 14, generator=torch.Generator().manual_seed(4))
    projection = _projection(weight)
    with torch.no_grad():
        projection.weight_hP.copy_(projection.weight_hP.bfloat16())
    stored = projection.unfolded().bfloat16()
    assert stored.shape == weight.shape
    assert torch.equal(PatchProjection.folded(stored), projection.weight_hP)


def _projection(weight_hcfyx: torch.Tensor) -> PatchProjection:
    settings = {"hidden_size": len(weight_hcfyx), "patch_size": 14, "temporal_patch_size": 2}
    projection = PatchProjection(settings)
    projection.weight_hP = torch.nn.Parameter(PatchProjection.folded(weight_hcfyx))
    return projection
