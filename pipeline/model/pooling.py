"""Hidden states to vectors, in float32 whatever the network's dtype.

bf16 pooling has produced NaN on long texts elsewhere, and a bf16 norm is off by up to 0.5 %.

Legend: T tokens of one item, H hidden size, D size of a vector of a multi-vector.
"""

from torch import Tensor
from torch.nn.functional import linear, normalize


def single_vector(hidden_TH: Tensor, span: slice) -> Tensor:
    """Mean of the hidden states in the span, L2-normalised: float32 [H]."""
    return normalize(hidden_TH[span].float().mean(dim=0), dim=-1)


def multi_vector(hidden_TH: Tensor, weight_DH: Tensor, bias_D: Tensor) -> Tensor:
    """Every hidden state projected and L2-normalised: float32 [T, D].

    The projector's weights are float32 and already hold their adapter.
    """
    return normalize(linear(hidden_TH.float(), weight_DH, bias_D), dim=-1)


def cut(single_BH: Tensor, dim: int) -> Tensor:
    """Matryoshka: the first `dim` values, L2-normalised again (arXiv 2205.13147)."""
    return single_BH if dim == single_BH.shape[-1] else normalize(single_BH[..., :dim], dim=-1)
