"""Again: a unit of which only what was set aside is tried once more.

The unit's earlier receipt says which items those are, and where the embeddings of the others lie.
Their rows alone are read, and what becomes of them is joined with what was there: the unit is still
one file, and no vector is computed twice.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConservationError
from pipeline.folder import Folder
from pipeline.fragments import read_file
from pipeline.stages.selection import select
from pipeline.work import Item, Receipt


class Earlier:
    """What an earlier attempt at a unit led to."""

    def __init__(self, folder: Folder, receipt: Receipt, reasons: Iterable[str]) -> None:
        """Look at an earlier attempt; its files are read when they are needed.

        Args:
            folder: the dataset's root.
            receipt: of the attempt.
            reasons: what was set aside for one of them is tried again.
        """
        self.receipt = receipt
        self._folder = folder
        self._reasons = pa.array(sorted(reasons), pa.string())
        self._aside_read: pa.Table | None = None

    def rows(self, rows: pa.Table) -> pa.Table:
        """Of the unit's source rows those to be tried again, without what of them is done."""
        tried = self._tried.select(["row", "modality"]).to_pylist()
        return select(rows, (Item(**item) for item in tried))

    def demand_all(self, items: pa.Table) -> None:
        """Refuse items that are not of the rows that were to be tried again.

        Raises:
            ConservationError: some are missing, or there are others.
        """
        if set(items["row"].to_pylist()) != set(self._tried["row"].to_pylist()):
            raise ConservationError(
                f"unit {self.receipt.unit}: the rows that came back are not those that were to be "
                "tried again"
            )

    @property
    def embedded(self) -> pa.Table | None:
        """The embeddings that are there, read whenever they are asked for; None for none."""
        data = self.receipt.data
        return None if data is None else read_file(self._folder, data)

    @property
    def left(self) -> pa.Table:
        """What stays set aside."""
        return self._aside.filter(pc.invert(self._is_tried))

    @property
    def _tried(self) -> pa.Table:
        return self._aside.filter(self._is_tried)

    @property
    def _is_tried(self) -> pa.ChunkedArray:
        return pc.is_in(self._aside["reason"], self._reasons)

    @property
    def _aside(self) -> pa.Table:
        # not a cached_property: in Python 3.11 all objects of a class wait for one that reads
        if self._aside_read is None:
            # a unit is tried again because it set something aside
            assert self.receipt.quarantine is not None
            self._aside_read = read_file(self._folder, self.receipt.quarantine)
        return self._aside_read
