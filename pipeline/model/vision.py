"""How the vision tower sees images: patches, windows, and several images in one pass.

The tower cuts an image into patches, groups 2 x 2 of them for the decoder, and in most blocks
attends within windows of 112 px. The library works these out per image on the device and waits for
the answer each time; here they are made on the host, once for each size of image, and handed over.
Windows of an image are ordered by their size, so that equal ones lie together and attention takes
them as one batch; the library undoes whatever order it is given.

Legend: N image patches, M merged patches (one token each), P values of a patch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from pipeline.model.checkpoint import Settings
from pipeline.model.images import Pixels

PATCHES = "visual.patch_embed.proj.weight"
"""The tensor of the tower's first layer, in canonical spelling."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the patches of some images go; of all images of a pack, one after another."""

    positions_N2: NDArray[np.int64]
    """Row and column of each patch in its image."""
    windows_M: NDArray[np.int64]
    """Merged patches, window by window."""
    window_lengths: NDArray[np.int64]
    """Patches of each window."""
    image_lengths: NDArray[np.int64]
    """Patches of each image."""


class PatchGeometry:
    """How the vision tower of one checkpoint cuts an image."""

    def __init__(self, checkpoint: Settings, device: torch.device) -> None:
        """Read the sizes; `device` is where `cut` will find the pixels."""
        vision, preprocessor = checkpoint.config["vision_config"], checkpoint.preprocessor
        self.patch, self.merge = int(vision["patch_size"]), int(vision["spatial_merge_size"])
        self.window = int(vision.get("window_size", 112)) // self.patch // self.merge
        # values are 0..255, the published mean and deviation are for 0..1
        self._mean_3, self._deviation_3 = (
            (255 * torch.tensor(preprocessor[name], dtype=torch.float32)).to(device)
            for name in ("image_mean", "image_std")
        )

    def grid(self, pixels: Pixels) -> tuple[int, int]:
        """Rows and columns of its patches."""
        return pixels.shape[0] // self.patch, pixels.shape[1] // self.patch

    def patches(self, pixels: Pixels) -> int:
        """How many patches it has."""
        rows, columns = self.grid(pixels)
        return rows * columns

    def lay_out(self, images: Sequence[Pixels]) -> Layout:
        """The layout of images that pass together."""
        alone = [_lay_out(self.grid(pixels), self.merge, self.window) for pixels in images]
        merged = np.cumsum([0, *(len(layout.windows_M) for layout in alone)])
        return Layout(
            positions_N2=np.concatenate([layout.positions_N2 for layout in alone]),
            windows_M=np.concatenate(
                [lay.windows_M + first for lay, first in zip(alone, merged[:-1], strict=True)]
            ),
            window_lengths=np.concatenate([layout.window_lengths for layout in alone]),
            image_lengths=np.concatenate([layout.image_lengths for layout in alone]),
        )

    def cut(self, pixels_yx3: Tensor) -> Tensor:
        """Normalised patches in the tower's order: float32 [N, P].

        Patches come merge block by merge block (2 x 2), each as (channel, y, x).
        """
        normal_yx3 = (pixels_yx3.float() - self._mean_3) / self._deviation_3
        rows, columns = (side // self.patch // self.merge for side in pixels_yx3.shape[:2])
        blocks = normal_yx3.view(
            rows, self.merge, self.patch, columns, self.merge, self.patch, 3
        ).permute(0, 3, 1, 4, 6, 2, 5)
        return blocks.reshape(-1, 3 * self.patch * self.patch)


class PatchProjection(nn.Module):
    """The tower's first layer for still images.

    The stored one is a convolution over frames of a video, and a still image is its one frame
    repeated: the sum of the weights over the frames is the same projection (up to rounding), at
    half the work and without a convolution.
    """

    def __init__(self, vision: Mapping[str, Any]) -> None:
        """Make it without its weights; `vision` is the checkpoint's vision_config."""
        super().__init__()
        values = 3 * int(vision["patch_size"]) ** 2
        self.frames = int(vision["temporal_patch_size"])
        self.weight_hP = nn.Parameter(torch.empty(int(vision["hidden_size"]), values))

    @staticmethod
    def folded(weight_hcfyx: Tensor) -> Tensor:
        """What is stored, summed over the frames in float32: [width of the tower, P]."""
        return weight_hcfyx.float().sum(dim=2).flatten(1)

    def unfolded(self) -> Tensor:
        """What is to be stored, each frame's equal share: [width of the tower, 3, frames, y, x]."""
        side = math.isqrt(self.weight_hP.shape[1] // 3)
        still_hcyx = self.weight_hP.view(-1, 3, side, side) / self.frames
        return still_hcyx.unsqueeze(2).expand(-1, -1, self.frames, -1, -1)

    def forward(self, patches_NP: Tensor) -> Tensor:
        """[N, P] to [N, width of the tower]."""
        return linear(patches_NP, self.weight_hP)


@lru_cache(maxsize=1024)
def _lay_out(grid: tuple[int, int], merge: int, window: int) -> Layout:
    """The layout of one image: pages come in few sizes."""
    rows, columns = grid[0] // merge, grid[1] // merge
    y, x = np.divmod(np.arange(rows * columns), columns)
    inner_y, inner_x = np.divmod(np.arange(merge * merge), merge)
    positions_N2 = np.stack(
        [
            (y[:, None] * merge + inner_y).reshape(-1),
            (x[:, None] * merge + inner_x).reshape(-1),
        ],
        axis=1,
    )
    of_window_M = (y // window) * -(-columns // window) + x // window
    sizes = np.bincount(of_window_M)
    # stable: merged patches stay in reading order within their window, windows within their size
    windows_M = np.lexsort((of_window_M, -sizes[of_window_M]))
    return Layout(
        positions_N2=positions_N2,
        windows_M=windows_M,
        window_lengths=np.sort(sizes)[::-1] * merge * merge,
        image_lengths=np.array([len(positions_N2)]),
    )
