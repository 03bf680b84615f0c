"""The board: counts of a run in progress, by adapter. Only for people to look at.

Writers add their receipts, the driver reads. A retried unit may be counted twice here; the commit
trusts receipts alone.
"""

from pipeline.work import Receipt, Tally


class Board:
    """What has been done so far."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}

    def add(self, receipt: Receipt) -> None:
        """Count a unit that was written."""
        self._tallies.setdefault(receipt.adapter, Tally()).add(receipt)

    def read(self) -> dict[str, Tally]:
        """The counts so far, by adapter."""
        return self._tallies
