"""Every kernel is plain softmax attention under a dense mask that keeps sequences apart.

The reference is float64, spells the whole [T, T] mask out and shares nothing with the kernels.
Legend: T tokens of a pack, h query heads, k key and value heads, d width of a head.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import is_flash_attention_requested

from pipeline.errors import SpecError
from pipeline.model import attention
from pipeline.model.attention import KERNELS, choose_kernel, kernel_named
from pipeline.model.runs import attend_runs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ON_CPU = pytest.mark.parametrize("kernel", ["runs", "flex"])
# flex is dense and uncompiled on a CPU, as its kernel says; the library mentions it once
dense_on_a_cpu = pytest.mark.filterwarnings(
    r"ignore:flex_attention called without torch.compile\(\):UserWarning"
)
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A pack of random vectors and how they lie in memory."""

    lengths: tuple[int, ...]
    heads: int
    kv_heads: int
    width: int
    causal: bool
    layout: str
    seed: int = 0

    @property
    def total(self) -> int:
        return sum(self.lengths)

    @property
    def scale(self) -> float:
        return self.width**-0.5

    def bounds(self, device: torch.device = CPU) -> Tensor:
        ends = torch.tensor((0, *self.lengths)).cumsum(0)
        return ends.to(device=device, dtype=torch.int32)

    def inputs(
        self, dtype: torch.dtype = torch.float32, device: torch.device = CPU
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value [T, heads, d], with the strides that the layout gives them."""
        random = torch.Generator().manual_seed(self.seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=random).to(dtype).to(device)

        total, width = self.total, self.width
        if self.layout == "vision tower":
            # one projection, cut into three: rows of q, k and v alternate
            assert self.heads == self.kv_heads
            query, key, value = draw(total, 3, self.heads, width).unbind(1)
            return query, key, value
        if self.layout == "decoder":
            # rotated queries and keys lie head by head, values token by token
            query = draw(self.heads, total, width).transpose(0, 1)
            key = draw(self.kv_heads, total, width).transpose(0, 1)
            return query, key, draw(total, self.kv_heads, width)
        query = draw(total, self.heads, width)
        return query, draw(total, self.kv_heads, width), draw(total, self.kv_heads, width)


def by_dense_mask(case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention in float64 with the mask spelled out: [T, h, d]."""
    query, key, value = query.double(), key.double(), value.double()
    groups = case.heads // case.kv_heads
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    sequence = torch.tensor([i for i, n in enumerate(case.lengths) for _ in range(n)])
    visible = sequence[:, None] == sequence[None]
    if case.causal:
        visible &= torch.ones(case.total, case.total, dtype=torch.bool).tril()
    scores = torch.einsum("qhd,khd->hqk", query, key) * case.scale
    weights = scores.masked_fill(~visible.to(query.device), -torch.inf).softmax(dim=-1)
    return torch.einsum("hqk,khd->qhd", weights, value)


def attended(kernel: str, case: Case, inputs: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    chosen = kernel_named(kernel)
    bounds = case.bounds(CPU if chosen.bounds_on_host else inputs[0].device)
    return chosen.attend(*inputs, bounds, max(case.lengths), case.causal, case.scale)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    # (length, how many of them lie side by side): runs of equal lengths are what `runs` is about
    runs = draw(
        st.lists(
            st.tuples(st.integers(1, 40), st.sampled_from([1, 1, 2, 4])), min_size=1, max_size=5
        )
    )
    heads, kv_heads = draw(st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 2), (3, 1), (8, 1)]))
    layouts = ["contiguous", "decoder"] + ["vision tower"] * (heads == kv_heads)
    return Case(
        lengths=tuple(length for length, count in runs for _ in range(count)),
        heads=heads,
        kv_heads=kv_heads,
        width=draw(st.sampled_from([8, 16, 20])),
        causal=draw(st.booleans()),
        layout=draw(st.sampled_from(layouts)),
        seed=draw(st.integers(0, 2**31)),
    )


# The computation --------------------------------------------------------------------------------


@dense_on_a_cpu
@ON_CPU
@settings(max_examples=20)
@given(case=cases())
def test_a_kernel_is_softmax_attention_under_a_mask_of_sequences(kernel: str, case: Case) -> None:
    inputs = case.inputs()
    before = [t.clone() for t in inputs]
    found = attended(kernel, case, inputs)
    assert found.shape == (case.total, case.heads, case.width)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), by_dense_mask(case, *inputs), rtol=0, atol=1e-5)
    for tensor, same in zip(inputs, before, strict=True):
        assert torch.equal(tensor, same)


@dense_on_a_cpu
@ON_CPU
@settings(max_examples=15)
@given(case=cases(), data=st.data())
def test_a_sequence_is_blind_to_what_lies_beside_it(
    kernel: str, case: Case, data: st.DataObject
) -> None:
    which = data.draw(st.integers(0, len(case.lengths) - 1))
    start, stop = case.bounds()[which : which + 2].tolist()
    inputs = case.inputs()
    before = attended(kernel, case, inputs)[start:stop].clone()
    for tensor in inputs:
        own = tensor[start:stop].clone()
        tensor.mul_(-7).add_(3)
        tensor[start:stop] = own
    # the same shapes, so not even the rounding may move
    assert torch.equal(attended(kernel, case, inputs)[start:stop], before)


@dense_on_a_cpu
@ON_CPU
@settings(max_examples=15)
@given(case=cases(), data=st.data())
def test_a_causal_token_is_blind_to_those_after_it(
    kernel: str, case: Case, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, case.total - 1))
    causal = Case(**vars(case) | {"causal": True})
    inputs = causal.inputs()
    before = attended(kernel, causal, inputs)[: at + 1].clone()
    for tensor in inputs:
        tensor[at + 1 :] = 5 - tensor[at + 1 :]
    torch.testing.assert_close(
        attended(kernel, causal, inputs)[: at + 1], before, rtol=0, atol=1e-6
    )


@given(case=cases())
def test_runs_is_told_to_the_compiler_as_it_is(case: Case) -> None:
    # what the compiler is told of shapes, strides and aliases must hold for every layout
    arguments = (*case.inputs(), case.bounds(), max(case.lengths), case.causal, case.scale)
    torch.library.opcheck(
        torch.ops.nightjar.attend_runs.default,
        arguments,
        test_utils=("test_schema", "test_faketensor"),
    )


@dense_on_a_cpu
def test_a_block_mask_is_not_taken_from_another_pack() -> None:
    # same total, other bounds; the first bounds are gone when the second are made
    for lengths in ((5, 7), (6, 6), (12,), (1, 11)) * 2:
        case = Case(lengths=lengths, heads=2, kv_heads=1, width=8, causal=True, layout="contiguous")
        inputs = case.inputs()
        found = attended("flex", case, inputs)
        torch.testing.assert_close(found.double(), by_dense_mask(case, *inputs), rtol=0, atol=1e-5)


# Registered with the library --------------------------------------------------------------------


class Layer(nn.Module):
    """What the library hands over as the module: only its causality is read."""

    def __init__(self, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal


@dense_on_a_cpu
@ON_CPU
def test_the_registered_function_takes_the_decoders_arguments(kernel: str) -> None:
    case = Case(lengths=(9, 9, 4), heads=4, kv_heads=2, width=16, causal=True, layout="decoder")
    inputs = case.inputs()
    call = ALL_ATTENTION_FUNCTIONS.get_interface(kernel_named(kernel).registered, None)
    found, weights = call(
        Layer(is_causal=True),
        *(t.transpose(0, 1).unsqueeze(0) for t in inputs),
        None,
        dropout=0.0,
        scaling=case.scale,
        sliding_window=None,
        position_ids=None,
        cu_seq_lens_q=case.bounds(),
        max_length_q=9,
    )
    assert weights is None
    assert found.shape == (1, 22, 4, 16)
    torch.testing.assert_close(found[0].double(), by_dense_mask(case, *inputs), rtol=0, atol=1e-5)


@dense_on_a_cpu
@ON_CPU
def test_the_registered_function_takes_the_vision_towers_arguments(kernel: str) -> None:
    case = Case(
        lengths=(16, 16, 4), heads=2, kv_heads=2, width=20, causal=False, layout="vision tower"
    )
    inputs = case.inputs()
    call = ALL_ATTENTION_FUNCTIONS.get_interface(kernel_named(kernel).registered, None)
    found, _ = call(
        Layer(is_causal=False),
        *(t.transpose(0, 1).unsqueeze(0) for t in inputs),
        attention_mask=None,
        scaling=case.scale,
        dropout=0.0,
        cu_seq_lens_q=case.bounds(),
        cu_seq_lens_k=case.bounds(),
        max_length_q=16,
        max_length_k=16,
        is_causal=False,
    )
    assert found.shape == (1, 36, 2, 20)
    torch.testing.assert_close(found[0].double(), by_dense_mask(case, *inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", KERNELS)
def test_the_library_passes_bounds_to_every_kernel(name: str) -> None:
    registered = kernel_named(name).registered
    assert registered in ALL_ATTENTION_FUNCTIONS.valid_keys()
    assert is_flash_attention_requested(requested_attention_implementation=registered)


# The choice -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_auto_on_a_cpu_is_runs(dtype: torch.dtype) -> None:
    chosen = choose_kernel("auto", CPU, dtype)
    assert chosen.name == "runs"
    assert chosen.bounds_on_host


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_asked_for_by_name_is_taken(name: str) -> None:
    chosen = choose_kernel(name, CPU, torch.float32)
    assert chosen.name == name
    assert chosen is kernel_named(name)


@pytest.mark.parametrize("name", ["sdpa", "", "AUTO", "flash_attention_2"])
def test_an_unknown_kernel_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(SpecError) as refused:
        choose_kernel(name, CPU, torch.float32)
    for known in KERNELS:
        assert known in str(refused.value)
    assert repr(name) in str(refused.value)


VARLEN, FLASH = "torch.nn.attention.varlen", "flash_attn"


@pytest.mark.parametrize(
    ("capability", "dtype", "there", "expected"),
    [
        ((8, 0), torch.bfloat16, {VARLEN}, "varlen"),
        ((9, 0), torch.bfloat16, {VARLEN, FLASH}, "varlen"),
        ((9, 0), torch.bfloat16, {FLASH}, "flash"),
        ((9, 0), torch.bfloat16, set(), "flex"),
        ((7, 5), torch.bfloat16, {VARLEN, FLASH}, "flex"),
        ((9, 0), torch.float32, {VARLEN, FLASH}, "flex"),
    ],
)
def test_auto_on_cuda_is_the_fastest_that_the_device_and_the_packages_offer(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    dtype: torch.dtype,
    there: set[str],
    expected: str,
) -> None:
    for name in KERNELS:
        kernel_named(name)  # imported before the import system is tampered with
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(
        attention.importlib.util, "find_spec", lambda name: name if name in there else None
    )
    assert choose_kernel("auto", CUDA, dtype).name == expected


# On CUDA ----------------------------------------------------------------------------------------

ON_CUDA = pytest.mark.parametrize(
    ("kernel", "dtype"),
    [
        ("varlen", torch.bfloat16),
        ("flash", torch.bfloat16),
        ("flex", torch.float32),
        ("runs", torch.float32),
    ],
)
# said by the compiler of flex in float32: full precision is what is tested here
full_precision = pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")


def demand_kernel(kernel: str) -> None:
    if kernel == "flash" and importlib.util.find_spec(FLASH) is None:
        pytest.skip("the flash-attn package is not installed")
    if kernel in ("varlen", "flash") and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("Flash Attention needs compute capability 8.0")


def on_cuda(lengths: tuple[int, ...], *, causal: bool) -> Case:
    """The widths of the published decoder (16 and 2 heads of 128) and vision tower (80)."""
    if causal:
        return Case(lengths=lengths, heads=16, kv_heads=2, width=128, causal=True, layout="decoder")
    return Case(
        lengths=lengths, heads=16, kv_heads=16, width=80, causal=False, layout="vision tower"
    )


def off_by(dtype: torch.dtype) -> dict[str, Any]:
    """What rounding gives: results of size 1 to 3, weights and values rounded to 8 bits."""
    return {"rtol": 0, "atol": 3e-2 if dtype == torch.bfloat16 else 1e-3}


@pytest.mark.gpu
@needs_cuda
@full_precision
@ON_CUDA
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "not causal"])
@pytest.mark.parametrize(
    "lengths",
    [(64, 64, 64, 48, 16), (1, 300, 1, 2, 2, 129), (700,), (128, 128), (5, 600, 37)],
    ids=str,
)
def test_a_kernel_on_cuda_is_softmax_attention_under_a_mask_of_sequences(
    kernel: str, dtype: torch.dtype, causal: bool, lengths: tuple[int, ...]
) -> None:
    demand_kernel(kernel)
    case = on_cuda(lengths, causal=causal)
    inputs = case.inputs(dtype, CUDA)
    found = attended(kernel, case, inputs)
    assert found.shape == (case.total, case.heads, case.width)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), by_dense_mask(case, *inputs), **off_by(dtype))


@pytest.mark.gpu
@needs_cuda
@full_precision
@ON_CUDA
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "not causal"])
def test_a_sequence_on_cuda_is_blind_to_what_lies_beside_it(
    kernel: str, dtype: torch.dtype, causal: bool
) -> None:
    demand_kernel(kernel)
    case = on_cuda((90, 130, 130, 17), causal=causal)
    inputs = case.inputs(dtype, CUDA)
    before = attended(kernel, case, inputs)[90:220].clone()
    for tensor in inputs:
        own = tensor[90:220].clone()
        tensor.mul_(-7).add_(3)
        tensor[90:220] = own
    torch.testing.assert_close(attended(kernel, case, inputs)[90:220], before, **off_by(dtype))


@pytest.mark.parametrize("causal", [True, False])
def test_runs_have_the_gradients_of_what_they_compute(causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    bounds = torch.tensor([0, 2, 4, 7, 8], dtype=torch.int32)
    query, key, value = (
        torch.randn(8, heads, 4, dtype=torch.float64, generator=generator, requires_grad=True)
        for heads in (4, 2, 2)
    )

    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        return attend_runs(*inputs, bounds, 3, causal, 0.5)

    # against differences of the forward pass
    assert torch.autograd.gradcheck(attend, (query, key, value))
