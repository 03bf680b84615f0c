"""Runs: attention over a pack as one call for each run of equally long sequences.

It is exact on every device and in every dtype, and has gradients, so it is what a CPU takes, what
the other kernels are held against, and what training uses.

Legend: T tokens (or patches) of a pack, h query heads, k key and value heads, d width of a head.
"""

from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@torch.library.custom_op("nightjar::attend_runs", mutates_args=())
def attend_runs(
    query_Thd: Tensor,
    key_Tkd: Tensor,
    value_Tkd: Tensor,
    bounds: Tensor,
    longest: int,
    causal: bool,
    scale: float,
) -> Tensor:
    """`_in_runs` as an operator of its own: to `torch.compile` it is one opaque node, however many
    runs there are."""
    return _in_runs(query_Thd, key_Tkd, value_Tkd, bounds, causal, scale)


def _in_runs(
    query_Thd: Tensor,
    key_Tkd: Tensor,
    value_Tkd: Tensor,
    bounds: Tensor,
    causal: bool,
    scale: float,
) -> Tensor:
    """Sequences of the same length that lie together are one batch of one call."""
    # under autocast the rotary embedding leaves queries and keys in float32
    query_Thd, key_Tkd = query_Thd.to(value_Tkd.dtype), key_Tkd.to(value_Tkd.dtype)
    if query_Thd.is_cuda:
        # enable_gqa rules out the memory-efficient kernel there, and what is left is quadratic
        key_Tkd, value_Tkd = for_each_head(query_Thd, key_Tkd, value_Tkd)
    runs = [(len(list(run)), length) for length, run in groupby(bounds.diff().tolist())]
    sizes = [count * length for count, length in runs]
    parts: list[Tensor] = []
    # split, since the gradient of a slice is as large as what it was cut from
    each = zip(*(torch.split(t, sizes) for t in (query_Thd, key_Tkd, value_Tkd)), strict=True)
    for (count, length), some in zip(runs, each, strict=True):
        q, k, v = (t.view(count, length, *t.shape[1:]).transpose(1, 2) for t in some)
        found = scaled_dot_product_attention(
            q, k, v, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        parts.append(found.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


@attend_runs.register_fake
def _shape_of_runs(
    query_Thd: Tensor,
    key_Tkd: Tensor,
    value_Tkd: Tensor,
    bounds: Tensor,
    longest: int,
    causal: bool,
    scale: float,
) -> Tensor:
    return torch.empty_like(query_Thd, dtype=value_Tkd.dtype, memory_format=torch.contiguous_format)


def _keep_for_gradients(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query_Thd, key_Tkd, value_Tkd, bounds, _, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(query_Thd, key_Tkd, value_Tkd, bounds)


def _gradients_of_runs(context: Any, gradient_Thd: Tensor) -> tuple[Tensor | None, ...]:
    """Of a forward pass that is made once more: attention is cheap beside what it would keep."""
    *inputs, bounds = context.saved_tensors
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        query_Thd, key_Tkd, value_Tkd = leaves
        attended_Thd = _in_runs(
            query_Thd, key_Tkd, value_Tkd, bounds, context.causal, context.scale
        )
    gradients = torch.autograd.grad(attended_Thd, leaves, gradient_Thd)
    return *gradients, None, None, None, None


attend_runs.register_autograd(_gradients_of_runs, setup_context=_keep_for_gradients)


def for_each_head(query_Thd: Tensor, key_Tkd: Tensor, value_Tkd: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values repeated to one for each query head, for kernels without grouped heads."""
    groups = query_Thd.shape[1] // key_Tkd.shape[1]
    return key_Tkd.repeat_interleave(groups, dim=1), value_Tkd.repeat_interleave(groups, dim=1)
