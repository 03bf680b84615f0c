"""The fingerprint: everything that decides the value of an embedding, and nothing else."""

import hashlib
import json
from collections.abc import Mapping

from pipeline.spec import JobSpec
from pipeline.tasks import TASKS

ENCODE_VERSION = "1"
"""Raised by hand when our own preparation, pooling or writing changes an embedding's value."""


def fingerprint(spec: JobSpec, checkpoint_hashes: Mapping[str, str], dtype: str) -> str:
    """What decides the value of every embedding of this job, as 64 hex digits (sha256).

    Args:
        spec: the job.
        checkpoint_hashes: sha256 of the checkpoint's files by relative name: weights, adapters,
            tokenizer, configuration and the pixel bounds in it.
        dtype: what the network computes in, `auto` resolved.
    """
    parts = {
        "encode_version": ENCODE_VERSION,
        "checkpoint": dict(checkpoint_hashes),
        "prompts": {task.name: task.prefix for task in TASKS.values()},
        "max_length": spec.model.max_length,
        "max_pixels": spec.model.max_pixels,
        "dtype": dtype,
        "single": spec.output.single and spec.output.single.model_dump(),
        "multi": spec.output.multi and spec.output.multi.model_dump(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
