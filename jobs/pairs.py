"""`nightjar pairs`: what nano is trained and measured on."""

import json
from pathlib import Path

from pipeline.nano.pairs import MANIFEST, write_pairs


def run(directory: str) -> None:
    """The command.

    Raises:
        SourceError: there is no package index to be had, or no teacher.
    """
    folder = Path(directory)
    write_pairs(folder)
    made = json.loads((folder / MANIFEST).read_text())
    counts = made["pairs"].values()
    print(
        f"pairs: {sum(each['train'] for each in counts):,} to train on and "
        f"{sum(each['held-out'] for each in counts):,} held out, in {directory}"
    )
    print(f"made from {made['index']}; {made['later']}")
