"""What a command is, and what several of them do first."""

import argparse
from collections.abc import Callable, Sequence

from pipeline.stores import StoreSpec

Command = Callable[[argparse.Namespace], None]
"""Called with what was typed."""


def use_storage(path: str | None) -> Sequence[StoreSpec]:
    """Reach object stores as a spec says, if one was named."""
    from pipeline.spec_file import load_storage
    from pipeline.storage import use_stores

    stores = [] if path is None else load_storage(path)
    use_stores(stores)
    return stores
