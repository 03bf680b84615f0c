"""Hidden states to vectors, in float32 whatever the network's dtype.

bf16 pooling has produced NaN on long texts elsewhere, and a bf16 norm is off by up to 0.5 %.

Legend: T tokens of a pack, B items, G spans and the gaps between them, H hidden size, D size of a
vector of a multi-vector.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize


def single_vectors(hidden_TH: Tensor, lengths_G: Tensor, spans_B: Tensor) -> Tensor:
    """Mean of the hidden states of each span, L2-normalised: float32 [B, H].

    Args:
        hidden_TH: of the whole pack.
        lengths_G: int64, of the spans and of what lies between them, none of it empty.
        spans_B: int64, which of these are an item's span.
    """
    means_GH = torch.segment_reduce(
        # its checks of the lengths would wait for the device
        hidden_TH.float(),
        "mean",
        lengths=lengths_G,
        unsafe=True,
    )
    return normalize(means_GH[spans_B], dim=-1)


def multi_vectors(hidden_TH: Tensor, weight_DH: Tensor, bias_D: Tensor) -> Tensor:
    """Every hidden state projected and L2-normalised: float32 [T, D].

    The projector's weights are float32 and already hold their adapter.
    """
    return normalize(linear(hidden_TH.float(), weight_DH, bias_D), dim=-1)


def cut(single_BH: Tensor, dim: int) -> Tensor:
    """Matryoshka: the first `dim` values, L2-normalised again (arXiv 2205.13147)."""
    return single_BH if dim == single_BH.shape[-1] else normalize(single_BH[..., :dim], dim=-1)
