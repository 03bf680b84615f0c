"""Forecast: how long a device takes for some work, by what `nightjar benchmark` measured of it.

Work is measured in tokens. Of the mixes that were measured the one counts whose items are of the
most similar size: short texts are slower by the token than long ones, and pages are another thing.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A device, as it was measured."""

    device: str
    """Its name."""
    at: str
    """When."""
    mixes: tuple[tuple[bool, float, float], ...]
    """(whether of images, tokens of an item, tokens each second)."""

    def seconds(self, is_image: bool, items: int, tokens: int) -> float:
        """How long items take that have so many tokens in all; infinite when none is like them."""
        if not items:
            return 0.0
        size = tokens / items
        fitting = [(length, rate) for image, length, rate in self.mixes if image == is_image]
        if not fitting:
            return math.inf
        _, rate = min(fitting, key=lambda mix: abs(math.log(mix[0] / size)))
        return tokens / rate


def read_speed(path: Path) -> Speed:
    """What a benchmark.json says.

    Raises:
        SpecError: it is none, or not there.
    """
    if not path.exists():
        raise SpecError(
            f"--benchmark: {str(path)!r} is not there; name the file that `nightjar benchmark` "
            "wrote, or leave the option out"
        )
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        mixes = tuple(
            (
                mix["patches_per_second"] > 0,
                mix["tokens_per_second"] / mix["items_per_second"],
                float(mix["tokens_per_second"]),
            )
            for mix in record["mixes"]
        )
        return Speed(device=record["device"], at=record["at"], mixes=mixes)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise SpecError(
            f"--benchmark: {str(path)!r} is not what `nightjar benchmark` writes "
            f"({type(error).__name__}: {error})"
        ) from error
