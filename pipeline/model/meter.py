"""What an engine has done: packs, tokens, patches, padding, and how long its device was at work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.model.staging import Pack

_Events = tuple[torch.cuda.Event, torch.cuda.Event]


@dataclass(kw_only=True)
class Meter:
    """Sums over the packs of an engine, from its start or from the last `reset`."""

    device: torch.device
    """Where the packs run."""
    packs: int = 0
    """Forward passes."""
    items: int = 0
    """Texts and images."""
    images: int = 0
    """Of these, images."""
    tokens: int = 0
    """Tokens of items."""
    patches: int = 0
    """Image patches."""
    padding: int = 0
    """Tokens computed that belong to no item."""
    busy_seconds: float = 0.0
    """Time the device was at work on packs, up to the last `settle`."""
    _running: list[_Events] = field(default_factory=list, repr=False)

    def reset(self) -> None:
        """Start anew."""
        self.packs = self.items = self.images = self.tokens = self.patches = self.padding = 0
        self.busy_seconds = 0.0
        self._running.clear()

    @contextmanager
    def measure(self, pack: Pack) -> Iterator[None]:
        """Count a pack, and time what is done within."""
        if self.device.type == "cuda":
            # torch does not type its streams and events
            make: Any = torch.cuda.Event
            begun, done = make(enable_timing=True), make(enable_timing=True)
            begun.record()
            yield
            done.record()
            self._running.append((begun, done))
        else:
            started = time.perf_counter()
            yield
            self.busy_seconds += time.perf_counter() - started
        self.packs += 1
        self.items += len(pack.lengths)
        self.images += 0 if pack.images is None else len(pack.images.shapes)
        self.tokens += sum(pack.lengths)
        self.patches += 0 if pack.images is None else len(pack.images.positions_N2)
        self.padding += pack.padding

    def settle(self) -> None:
        """Add up the times of packs that are done; call it when the last has been waited for."""
        for begun, done in self._running:
            self.busy_seconds += begun.elapsed_time(done) / 1000
        self._running.clear()
