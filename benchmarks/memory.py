"""How much memory this process has held at most, since it was last asked to forget (Linux)."""

import re
from pathlib import Path


def forget_highest() -> int:
    """Bytes held now, from which on the highest is measured."""
    Path("/proc/self/clear_refs").write_text("5")
    return highest()


def resident() -> int:
    """Bytes held now."""
    return _bytes("VmRSS")


def highest() -> int:
    """Bytes."""
    return _bytes("VmHWM")


def _bytes(name: str) -> int:
    (kilobytes,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024
