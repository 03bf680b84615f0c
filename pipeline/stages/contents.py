"""Contents: what embeddings a row asks for, and what each of them is of.

One for each of text and image that it has. Whoever compares rows and whoever embeds them must see
the same, so both ask here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import Reason
from pipeline.tasks import EXPECTED, Modality, find_task

OF_IMAGE = (Reason.IMAGE_NOT_FOUND, Reason.UNSAFE_PATH)
"""Faults of reading that leave a text of the same row whole."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One embedding that a row asks for, or the reason why it gets none."""

    modality: Modality | None
    """None for a fault of the row as a whole."""
    content: bytes
    """The text or the encoded image; empty for a fault."""
    fault: tuple[str, str, str] | None = None
    """Reason, stage, message."""

    @property
    def source_hash(self) -> bytes | None:
        """Of its modality and content; None for a fault."""
        if self.fault is not None:
            return None
        return hashlib.sha256(f"{self.modality}\0".encode() + self.content).digest()


def read_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """What `asked_of` looks at, of a table of `source_schema`; ids and kept columns pass unread."""
    looked_at = rows.select(["task", "text", "image", "reason", "stage", "message"])
    found: list[dict[str, Any]] = looked_at.append_column("no_id", rows["id"].is_null()).to_pylist()
    return found


def asked_of(row: Mapping[str, Any]) -> list[Asked]:
    """What a row from `read_rows` asks for; at least one."""
    asked = []
    if row["reason"] is not None:
        of_image = row["reason"] in OF_IMAGE
        fault = (row["reason"], row["stage"], row["message"])
        if not of_image:
            # a later stage that fails of a row leaves as many items undone as it asks for
            is_read = row["stage"] != "source" and find_task(row["task"]) and not row["no_id"]
            there = [kind for kind in Modality if row[kind] is not None] if is_read else []
            return [Asked(modality=kind, content=b"", fault=fault) for kind in there or (None,)]
        asked = [Asked(modality=Modality.IMAGE, content=b"", fault=fault)]
    task = find_task(row["task"])
    if row["no_id"] and not asked:
        return [_refused(Reason.NULL_ID, "the id is null")]
    if task is None and not asked:
        message = f"{row['task']!r} is not {EXPECTED}"
        return [_refused(Reason.UNKNOWN_TASK, message)]
    if task is not None and not row["no_id"]:
        asked += [
            Asked(modality=modality, content=content)
            for modality, content in ((Modality.TEXT, row["text"]), (Modality.IMAGE, row["image"]))
            if content is not None
        ]
    return asked or [_refused(Reason.NULL_INPUT, "neither a text nor an image")]


def _refused(reason: Reason, message: str) -> Asked:
    return Asked(modality=None, content=b"", fault=(str(reason), "prepare", message))
