"""The device a model runs on: which one, what it computes in, and the memory it has."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from pipeline.errors import DeviceLost, SpecError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What the network may compute in, by the name in a spec."""


def pick_device(wanted: str) -> torch.device:
    """The device asked for; auto is CUDA when there is one, else the CPU.

    Raises:
        SpecError: no CUDA device where one is asked for.
    """
    there = torch.cuda.is_available()
    if wanted.startswith("cuda") and not there:
        # an actor that was given a GPU must not fall back to a CPU in silence
        raise SpecError(
            f"device: {wanted!r}, but torch {torch.__version__} sees no CUDA device here; install "
            "a CUDA build of torch, or ask for the CPU: of pools by gpus: 0, of a training by "
            "compute.device: cpu"
        )
    if wanted == "auto":
        wanted = "cuda" if there else "cpu"
    return torch.device(wanted)


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The dtype of that name, `auto` resolved.

    Raises:
        SpecError: no such dtype.
    """
    if wanted == "auto":
        wanted = auto_dtype(device)
    if wanted not in DTYPES:
        raise SpecError(f"dtype: {wanted!r} is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[wanted]


def auto_dtype(device: torch.device) -> str:
    """What `auto` means for vectors on a device: bfloat16 on CUDA, float32 on a CPU."""
    return "bfloat16" if device.type == "cuda" else "float32"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for it; a CPU without them is 20 times slower with it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def name_of(device: torch.device) -> str:
    """A device as a person would call it."""
    if device.type == "cuda":
        gigabytes = torch.cuda.get_device_properties(device).total_memory / 2**30
        return f"{torch.cuda.get_device_name(device)} of {gigabytes:.0f} GiB"
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU with {threads} thread{'s' if threads > 1 else ''}"


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; what torch holds in reserve there counts as free."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + reserved)


def release_memory(device: torch.device) -> None:
    """Give back what torch holds in reserve."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the host, had too little memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # for the CPU torch has no class of its own
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


@contextmanager
def device_errors() -> Iterator[None]:
    """Say by its class that a device is lost: after such an error its process can do nothing more.

    Raises:
        DeviceLost: an asynchronous error of the accelerator, such as an illegal address.
    """
    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceLost(f"the device fails whatever it is asked: {error}") from error
