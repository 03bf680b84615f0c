"""What actors with pretended GPUs have done: see `benchmarks/pretended/`."""

from dataclasses import dataclass
from pathlib import Path

PRETENDED = Path(__file__).parent / "pretended"
"""The folder that goes on PYTHONPATH, before the project's own."""


@dataclass(frozen=True, kw_only=True)
class Deed:
    """One thing that an actor did."""

    when: float
    """Seconds since 1970, when it was done."""
    actor: str
    """Who did it."""
    node: str
    """Ray's id of the node it was on."""
    what: str
    """`loaded` the model, has `begun` a unit, or done a `unit`."""
    adapter: str
    """With which adapter."""


def deeds(folder: Path, what: str) -> list[Deed]:
    """All of a kind that are in a PRETENDED_LOG, in the order in which they were done."""
    lines = [line.split() for file in folder.iterdir() for line in file.read_text().splitlines()]
    found = [
        Deed(when=float(when), actor=actor, node=node, what=kind, adapter=adapter)
        for when, actor, node, kind, adapter in lines
        if kind == what
    ]
    return sorted(found, key=lambda deed: deed.when)
