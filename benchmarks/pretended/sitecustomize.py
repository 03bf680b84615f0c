"""Python imports this at its start where the folder is on its path: then GPUs are pretended.

Ray is told of GPUs that are not there (`--num-gpus`), and an actor that was given one computes on a
CPU. Its weights take PRETENDED_LOAD seconds more to come and a unit takes PRETENDED_UNIT seconds
more, of sleep: so many devices as one likes are busy on a machine that is not. What an actor did,
when and on which node is written to the folder PRETENDED_LOG, as `benchmarks.deeds` reads it.
"""

import os
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.patched import after_import

_NAME = uuid.uuid4().hex


def _seconds(name: str) -> float:
    return float(os.environ.get(name, "0"))


def _log(what: str) -> None:
    folder = os.environ.get("PRETENDED_LOG")
    if folder:
        import ray

        node = ray.get_runtime_context().get_node_id()
        with Path(folder, _NAME).open("a") as file:
            file.write(f"{time.time()} {_NAME} {node} {what}\n")


def _devices(module: Any) -> None:
    original = module.pick_device

    def pick_device(wanted: str) -> Any:
        return original("cpu" if wanted.startswith("cuda") else wanted)

    module.pick_device = pick_device


def _weights(module: Any) -> None:
    original = module.ModelRecipe.open

    def open_slowly(self: Any, *arguments: Any) -> Any:
        time.sleep(_seconds("PRETENDED_LOAD"))
        return original(self, *arguments)

    module.ModelRecipe.open = open_slowly


def _recipe(module: Any) -> None:
    original = module.Recipe.embed

    def embed(self: Any, adapter: str, *arguments: Any, **named: Any) -> Any:
        found = original(self, adapter, *arguments, **named)
        _log(f"loaded {adapter}")
        return found

    module.Recipe.embed = embed


def _embed(module: Any) -> None:
    original = module.Embed._submit

    def submit(self: Any, ready: Any, adapter: str) -> Any:
        def run() -> None:
            _log(f"begun {adapter}")
            time.sleep(_seconds("PRETENDED_UNIT"))
            _log(f"unit {adapter}")

        # in the thread of the device, which does one unit at a time
        self._device.submit(run).result()
        return original(self, ready, adapter)

    module.Embed._submit = submit


after_import(
    {
        "pipeline.model.device": _devices,
        "pipeline.stages.loaded": _weights,
        "pipeline.stages.recipe": _recipe,
        "pipeline.stages.embed": _embed,
    }
)
