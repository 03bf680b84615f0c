"""Modules changed as soon as they are imported, for processes that others start: Ray's workers.

A folder with a `sitecustomize.py` that calls `after_import` goes on PYTHONPATH, and Python imports
it at its start.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any


def after_import(changes: Mapping[str, Callable[[Any], None]]) -> None:
    """Have modules changed, each by a function that is called with it.

    Args:
        changes: by name of the module.
    """
    sys.meta_path.insert(0, _Finder(dict(changes)))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, changes: dict[str, Callable[[Any], None]]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        change = self._changes.pop(name, None)
        if change is None:
            return None
        spec: Any = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec
