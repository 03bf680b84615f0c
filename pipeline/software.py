"""The versions of the software that made something, for whoever has to judge it later; and whether
those that are here will do.
"""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

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


def unmet(distribution: str = "nightjar") -> list[str]:
    """What a distribution needs and this Python has not, as it asks for it, with what is there."""
    python, here = metadata(distribution)["Requires-Python"] or "", platform.python_version()
    found = [] if here in SpecifierSet(python) else [f"python{python}, and here is {here}"]
    for line in requires(distribution) or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        there = installed([needed.name]).get(needed.name)
        if there is None or not needed.specifier.contains(there, prereleases=True):
            found.append(f"{needed.name}{needed.specifier}, and here is {there or 'none'}")
    return found


def supports(name: str, found: str, distribution: str = "nightjar") -> SpecifierSet | None:
    """None when a version of something will do; else the versions of it that would.

    Args:
        name: of what a distribution needs.
        found: the version that there is.
        distribution: that needs it.
    """
    needed = [Requirement(line) for line in requires(distribution) or ()]
    wanted = next(one.specifier for one in needed if one.name == name)
    return None if wanted.contains(found, prereleases=True) else wanted
