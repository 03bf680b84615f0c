"""The versions of the software that made something, for whoever has to judge it later."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

RECORDED = ("nightjar", "ray", "torch", "transformers", "pyarrow", "pillow")
"""What a snapshot, and the account of a run, say the versions of."""


def installed(names: Iterable[str]) -> dict[str, str]:
    """Python's version, and those of the named distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
