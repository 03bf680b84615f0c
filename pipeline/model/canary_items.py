"""The canaries: a few fixed items, embedded again and again to see that a device still can.

Of several scripts and lengths, and two images, since a fault may touch one path and not another.
They are made here and not read from a file, so that every host has the same ones.
"""

from contextlib import suppress

import numpy as np
from PIL import Image

from pipeline.errors import RowError
from pipeline.model.processor import PreparedItem, Processor
from pipeline.tasks import Task

_TEXTS = {
    "english": "The nightjar sleeps by day on the bare ground, and hunts moths after dusk.",
    "german": "Der Ziegenmelker schläft tagsüber am Boden und jagt in der Dämmerung nach Faltern.",
    "chinese": "夜鹰白天在地面上休息。",
    "code": "def hunts(bird: str, hour: int) -> bool:\n    return bird in HUNTERS and hour > 18\n",
    "numbers": "3.14159 2.71828 1.41421 1.61803 0.57721",
    "word": "moth",
}
_SIDE = 112
"""Of an image, in pixels."""


def canary_items(processor: Processor, task: Task) -> dict[str, PreparedItem]:
    """The canaries by name, but for those that a job's own bounds do not allow.

    Args:
        processor: of the job.
        task: whose prompt the texts have.
    """
    found = {name: processor.text(text, task) for name, text in _TEXTS.items()}
    for name, image in _images().items():
        with suppress(RowError):
            found[name] = processor.image(image)
    return found


def _images() -> dict[str, Image.Image]:
    ramp = np.arange(_SIDE, dtype=np.uint8)
    gradient = np.stack(np.broadcast_arrays(ramp[:, None], ramp, 200 - ramp), axis=-1)
    checks = np.where((ramp[:, None] // 14 + ramp // 14) % 2, 255, 0).astype(np.uint8)
    return {"gradient": Image.fromarray(gradient), "checks": Image.fromarray(checks)}
