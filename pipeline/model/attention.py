"""Attention over a pack: its sequences lie side by side, each blind to the others, nothing padded.

A kernel takes the whole pack and the bounds of its sequences. It is registered with transformers'
attention interface, so no model code is copied: the decoder (causal) and the vision tower (windows
and whole images) call it with the arguments that the library hands to Flash Attention. Which one
is used depends on the device:

- `varlen`: torch's own variable-length Flash Attention; CUDA from compute capability 8.0, 16 bits.
- `flash`: the flash-attn package, where it is installed and torch has no `varlen`.
- `flex`: torch's flex attention with a block mask; any other CUDA device, and float32 there.
- `runs`: one SDPA call for each run of equally long sequences. What a CPU takes, and the reference
  that the others are held against.

Legend: T tokens (or patches) of a pack, S sequences, h query heads, k key and value heads, d width
of a head.
"""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from pipeline.errors import SpecError
from pipeline.model.runs import attend_runs, for_each_head

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, int, bool, float], Tensor]
"""(query [T, h, d], key [T, k, d], value [T, k, d], bounds [S + 1] int32 that start at 0 and end at
T, length of the longest sequence, causal, scale) to [T, h, d]."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A way to compute attention over a pack."""

    name: str
    """For messages, tests and measurements."""
    attend: Attend
    """The computation."""
    bounds_on_host: bool
    """Whether it reads the bounds on the CPU, whatever device the rest is on."""
    compiles: bool
    """Whether layers that call it are compiled as one graph, with it as one node."""

    @property
    def registered(self) -> str:
        """Its name in transformers; the library passes bounds only where it reads `flash`."""
        return f"nightjar_flash_{self.name}"


def _varlen() -> Attend:
    """Torch's own; older releases spell out neither grouped heads nor the number of splits."""
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in known else {}
    # left to itself it splits by the longest sequence, and others' rounding depends on that one
    splits: dict[str, Any] = {"num_splits": 1} if "num_splits" in known else {}

    def attend(
        query_Thd: Tensor,
        key_Tkd: Tensor,
        value_Tkd: Tensor,
        bounds: Tensor,
        longest: int,
        causal: bool,
        scale: float,
    ) -> Tensor:
        if not grouped:
            key_Tkd, value_Tkd = for_each_head(query_Thd, key_Tkd, value_Tkd)
        attended_Thd = varlen_attn(
            query_Thd,
            key_Tkd,
            value_Tkd,
            bounds,
            bounds,
            longest,
            longest,
            scale=scale,
            window_size=(-1, 0) if causal else (-1, -1),
            **grouped,
            **splits,
        )
        assert isinstance(attended_Thd, Tensor)
        return attended_Thd

    return attend


def _flash(
    query_Thd: Tensor,
    key_Tkd: Tensor,
    value_Tkd: Tensor,
    bounds: Tensor,
    longest: int,
    causal: bool,
    scale: float,
) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    attended_Thd: Tensor = flash_attn_varlen_func(
        query_Thd,
        key_Tkd,
        value_Tkd,
        bounds,
        bounds,
        longest,
        longest,
        softmax_scale=scale,
        causal=causal,
    )
    return attended_Thd


def _flex(
    query_Thd: Tensor,
    key_Tkd: Tensor,
    value_Tkd: Tensor,
    bounds: Tensor,
    longest: int,
    causal: bool,
    scale: float,
) -> Tensor:
    query, key, value = (t.transpose(0, 1).unsqueeze(0) for t in (query_Thd, key_Tkd, value_Tkd))
    attended: Tensor = _flex_call(query.is_cuda)(
        query,
        key,
        value,
        block_mask=_block_mask(_Identity(bounds), len(query_Thd), causal),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended[0].transpose(0, 1)


@lru_cache(maxsize=2)
def _flex_call(compiled: bool) -> Callable[..., Tensor]:
    """Only the compiled one skips the masked blocks; the other is dense, for tests on a CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    call: Callable[..., Tensor] = flex_attention
    return torch.compile(call, dynamic=True) if compiled else call


class _Identity:
    """A tensor as the key of a cache: equal when it is the same object."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.tensor is other.tensor

    def __hash__(self) -> int:
        return id(self.tensor)


@lru_cache(maxsize=4)
def _block_mask(bounds: _Identity, total: int, causal: bool) -> Any:
    """Which blocks are looked at: made once for all layers that share their bounds."""
    from torch.nn.attention.flex_attention import create_block_mask

    device = bounds.tensor.device
    sequence_T = torch.bucketize(torch.arange(total, device=device), bounds.tensor[1:], right=True)

    def looks_at(_batch: Tensor, _head: Tensor, one: Tensor, other: Tensor) -> Tensor:
        same = sequence_T[one] == sequence_T[other]
        return same & (one >= other) if causal else same

    return create_block_mask(looks_at, None, None, total, total, device=device)


def _register(kernel: Kernel) -> Kernel:
    def packed_attention(
        module: nn.Module,
        query_1hTd: Tensor,
        key_1kTd: Tensor,
        value_1kTd: Tensor,
        *_mask: Tensor | None,
        scaling: float,
        cu_seq_lens_q: Tensor,
        max_length_q: int,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """The library's signature, which passes more than is used: the bounds are the mask."""
        query_Thd, key_Tkd, value_Tkd = (
            t[0].transpose(0, 1) for t in (query_1hTd, key_1kTd, value_1kTd)
        )
        causal = bool(module.is_causal)
        attended_Thd = kernel.attend(
            query_Thd, key_Tkd, value_Tkd, cu_seq_lens_q, max_length_q, causal, scaling
        )
        return attended_Thd.unsqueeze(0), None

    AttentionInterface.register(kernel.registered, packed_attention)
    return kernel


KERNELS = ("varlen", "flash", "flex", "runs")


@lru_cache(maxsize=len(KERNELS))
def kernel_named(name: str) -> Kernel:
    """The kernel of that name, registered with transformers.

    Raises:
        SpecError: no such kernel.
    """
    if name not in KERNELS:
        raise SpecError(f"attention: {name!r} is not one of {', '.join(KERNELS)}")
    made: dict[str, Callable[[], Attend]] = {
        "varlen": _varlen,
        "flash": lambda: _flash,
        "flex": lambda: _flex,
        "runs": lambda: attend_runs,
    }
    kernel = Kernel(
        name=name,
        attend=made[name](),
        bounds_on_host=name == "runs",
        compiles=name in ("varlen", "runs"),
    )
    return _register(kernel)


def choose_kernel(name: str, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel of that name; auto is the fastest this device and the packages installed offer.

    Raises:
        SpecError: no such kernel.
    """
    if name != "auto":
        return kernel_named(name)
    if device.type != "cuda":
        return kernel_named("runs")
    has_flash = torch.cuda.get_device_capability(device) >= (8, 0) and dtype.itemsize == 2
    for kernel, package in (("varlen", "torch.nn.attention.varlen"), ("flash", "flash_attn")):
        if has_flash and importlib.util.find_spec(package) is not None:
            return kernel_named(kernel)
    return kernel_named("flex")
