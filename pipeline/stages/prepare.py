"""Prepare: decode, tokenise, resize and hash the rows of a unit, on a CPU.

Encoded bytes come in, token ids and resized uint8 pixels go out; a float array would be eight
times as large. A row becomes one item for each of text and image it has; a row that cannot be
prepared becomes an item with a reason, and its neighbours do not notice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import Reason, RowError
from pipeline.model.processor import PreparedItem, Processor
from pipeline.schema import prepared_schema
from pipeline.stages.bisect import bisect, blame_row
from pipeline.stages.bounds import Bounds
from pipeline.stages.contents import Asked, asked_of, read_rows
from pipeline.tasks import TASKS, Modality, Task, task_named


@dataclass(frozen=True, kw_only=True)
class _Item:
    at: int
    """Index of its row in the table."""
    modality: Modality | None
    source_hash: bytes | None
    prepared: PreparedItem | None
    fault: tuple[str, str, str] | None
    """Reason, stage, message."""


class Prepare:
    """Source rows in, prepared items out; both as Arrow tables."""

    def __init__(
        self,
        processor: Processor,
        id_type: pa.DataType,
        kept: Sequence[pa.Field],
        bounds: Bounds | None = None,
    ) -> None:
        self._processor = processor
        self._bounds = bounds or Bounds()
        self._schema = prepared_schema(id_type, kept)
        self.items = 0
        """How many it has taken up."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        """One unit: a table of `source_schema` to one of `prepared_schema`."""
        return bisect(self._prepared, rows, "prepare", self._blame)

    def _blame(self, error: Exception) -> tuple[Reason, str]:
        return blame_row(error, lambda: self._processor.text("control", TASKS["retrieval.query"]))

    def _prepared(self, rows: pa.Table) -> pa.Table:
        items = [item for at, row in enumerate(read_rows(rows)) for item in self._items(at, row)]
        ready = [item.prepared for item in items]
        taken = rows.combine_chunks().take(pa.array([item.at for item in items], pa.int64()))
        columns = {name: taken[name] for name in ("row", "locator", "id", "task", "kept")}
        columns["modality"] = pa.array([item.modality for item in items], pa.string())
        columns["source_hash"] = pa.array([i.source_hash for i in items], pa.binary(32))
        columns["token_ids"] = _token_lists(ready)
        columns["truncated"] = pa.array([p is not None and p.truncated for p in ready])
        pixels = [None if p is None else p.pixels for p in ready]
        # a copy each: Arrow never lets go of a memoryview, and a worker would keep every image
        columns["pixels"] = pa.array(
            [None if p is None else p.tobytes() for p in pixels], pa.large_binary()
        )
        for axis, name in enumerate(("height", "width")):
            sides = [None if p is None else p.shape[axis] for p in pixels]
            columns[name] = pa.array(sides, pa.int32())
        for part, name in enumerate(("reason", "stage", "message")):
            faults = [item.fault and item.fault[part] for item in items]
            columns[name] = pa.array(faults, pa.string())
        return pa.table([columns[field.name] for field in self._schema], schema=self._schema)

    def _items(self, at: int, row: dict[str, Any]) -> list[_Item]:
        return [
            _faulty(at, asked.modality, None, *asked.fault)
            if asked.fault is not None
            else self._item(at, asked, task_named(row["task"]))
            for asked in asked_of(row)
        ]

    def _item(self, at: int, asked: Asked, task: Task) -> _Item:
        self.items += 1
        modality, content, source_hash = asked.modality, asked.content, asked.source_hash
        try:
            with self._bounds.held():
                if modality is Modality.IMAGE:
                    prepared = self._processor.image(content)
                else:
                    prepared = self._processor.text(_decode(content), task)
        except RowError as error:
            return _faulty(at, modality, source_hash, str(error.reason), "prepare", str(error))
        except MemoryError:
            message = "preparing it takes more memory than there is within limits.decode_memory"
            return _faulty(at, modality, source_hash, str(Reason.OOM), "prepare", message)
        return _Item(
            at=at, modality=modality, source_hash=source_hash, prepared=prepared, fault=None
        )


def _decode(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RowError(Reason.INVALID_UNICODE, f"the text is not UTF-8: {error}") from error


def _faulty(
    at: int,
    modality: Modality | None,
    source_hash: bytes | None,
    reason: str,
    stage: str,
    message: str,
) -> _Item:
    fault = (reason, stage, message)
    return _Item(at=at, modality=modality, source_hash=source_hash, prepared=None, fault=fault)


def _token_lists(ready: Sequence[PreparedItem | None]) -> pa.ListArray:
    ids = [np.empty(0, np.int32) if p is None else p.token_ids for p in ready]
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(ids)))
