"""Symbolic links below a local source: followed within it, and no further.

A corpus may link one of its files to another. A link that leads out of it could make any file of
the host a part of the corpus, one to a directory could lead round in a circle, and one that is
passed over is a file missing without a word: so these are refused.
"""

from pathlib import Path

from pipeline.errors import SourceError


def demand_within(link: str, base: str) -> None:
    """Refuse a link below a directory that does not lead to a file below it.

    Raises:
        SourceError: names the link, and says where it leads.
    """
    path = Path(link)
    target = path.readlink()
    if not leads_below(path, Path(base)):
        fault = f"outside {base}: name what it leads to in source.uri, or put a copy in its place"
    elif path.is_dir():
        fault = "a directory, and directories are not searched through links: name it in source.uri"
    elif not path.is_file():
        fault = "no file that is there: remove the link, or mend it"
    else:
        return
    raise SourceError(f"{link} is a link to {target}, which is {fault}")


def leads_below(path: Path, base: Path) -> bool:
    """Whether a path, its links followed, lies below a directory."""
    try:
        return path.resolve().is_relative_to(base.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False
