"""The token budget of a device: measured once, remembered, lowered when memory is short.

Larger packs use a device better, up to a point; beyond it they only take memory. So packs of
doubling size are timed until one is no longer faster or memory runs out, and the smallest that is
about as fast as the best is taken. What was found is kept in a small file for each host, under
everything that could change the answer.
"""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline import durable
from pipeline.model.device import is_out_of_memory, release_memory

logger = logging.getLogger(__name__)

BUDGETS = ".cache/nightjar/token-budgets.json"
"""Where a host remembers, below the home directory."""
SMALLEST, LARGEST = 1024, {"cpu": 8192, "cuda": 65536}
"""Tokens; the largest that is tried, by device type."""
_PATIENCE = {"cpu": 2.0, "cuda": 20.0}
"""Seconds after which no larger pack is tried: a slow device is full with a small one."""
_ENOUGH = 0.97
"""Of the best rate seen: smaller packs within it are preferred."""
_MEMORY_SHARE = 0.5
"""Of the device's memory that may be in use after a pack for one of twice the size to be tried."""

Run = Callable[[int], None]
"""Runs a pack of that many tokens, and returns when it is done."""


class TokenBudget:
    """The budget of one kind of work on one kind of device."""

    def __init__(self, key: str, device: torch.device, fixed: int | None) -> None:
        """Recall the budget.

        Args:
            key: everything that could change the answer.
            device: to be measured on.
            fixed: the user's own, which is neither measured nor remembered.
        """
        self._key = key
        self._device = device
        self._fixed = fixed
        self._tokens = fixed or _recall(key)

    @property
    def is_known(self) -> bool:
        """Whether nothing is left to be measured."""
        return self._tokens is not None

    def tokens(self, run: Run) -> int:
        """The budget; measured with `run` if it is not known."""
        if self._tokens is None:
            self._keep(find_budget(run, self._device))
        assert self._tokens is not None
        return self._tokens

    def lower(self, cost: int) -> int:
        """A pack of that cost did not fit: the new budget, half of it."""
        self._keep(max(1, min(cost, self._tokens or cost) // 2))
        assert self._tokens is not None
        return self._tokens

    def _keep(self, tokens: int) -> None:
        self._tokens = tokens
        if self._fixed is None:
            _remember(self._key, tokens)


def find_budget(run: Run, device: torch.device) -> int:
    """Time packs of doubling size; the smallest that is about as fast as the best."""
    rates: dict[int, float] = {}
    started = time.monotonic()
    size = SMALLEST
    while size <= LARGEST.get(device.type, SMALLEST):
        try:
            # the first run of a size allocates, and compiles where layers are compiled
            run(size)
            begun = time.perf_counter()
            run(size)
            rates[size] = size / (time.perf_counter() - begun)
        except Exception as error:
            if not is_out_of_memory(error) or not rates:
                raise
            release_memory(device)
            break
        waited = time.monotonic() - started
        if waited > _PATIENCE.get(device.type, 0) or not _has_room_to_double(device):
            break
        size *= 2
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= _ENOUGH * best)


def _has_room_to_double(device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    in_use = torch.cuda.max_memory_reserved(device)
    return in_use <= _MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory


def _recall(key: str) -> int | None:
    found = _remembered().get(key)
    return found if type(found) is int and found > 0 else None


def _remember(key: str, tokens: int) -> None:
    known = json.dumps(_remembered() | {key: tokens}, indent=1)
    try:
        durable.put(Path.home() / BUDGETS, known.encode())
    except (OSError, RuntimeError) as error:
        # a container may have no home, or one that cannot be written to
        logger.warning("the token budget will be measured again next time: %s", error)


def _remembered() -> dict[str, object]:
    try:
        found = json.loads((Path.home() / BUDGETS).read_bytes())
    except (OSError, ValueError, RuntimeError):
        # no home, not there yet, or not ours: it is only a memory
        return {}
    return found if isinstance(found, dict) else {}
