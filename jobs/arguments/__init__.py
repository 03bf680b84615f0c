"""The arguments of the `nightjar` command: what can be typed, and what it means."""

import argparse
from importlib.metadata import version

from jobs.arguments import clusters, datasets, models, runs, stores


def parser() -> argparse.ArgumentParser:
    """The parser of `nightjar`: each command leaves its name in `command`."""
    found = argparse.ArgumentParser(
        prog="nightjar", description="Re-embed whole corpora with jina-embeddings-v4."
    )
    found.add_argument("--version", action="version", version=version("nightjar"))
    commands = found.add_subparsers(required=True, metavar="COMMAND")

    runs.add(commands)
    datasets.add(commands)
    stores.add(commands)
    clusters.add(commands)
    models.add(commands)
    return found
