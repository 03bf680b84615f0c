"""nano as it is shipped: a checkpoint in the official layout, beside this module.

How it was made and how good it is stands in its model card, `checkpoint/README.md`.
"""

import shutil
from pathlib import Path

from pipeline.errors import CheckpointError

CHECKPOINT = Path(__file__).parent / "checkpoint"


def write_nano(directory: Path) -> None:
    """Copy it.

    Args:
        directory: a new or an empty one.

    Raises:
        CheckpointError: something is there.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"{directory}: is not an empty directory; name a new one for nano")
    shutil.copytree(CHECKPOINT, directory, dirs_exist_ok=True)


def megabytes() -> float:
    """How large it is."""
    return sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file()) / 1e6
