"""The board: what workers tell the driver of a run in progress: counts, attempts, what went wrong.

Writers add their receipts, the driver reads. A retried unit may be counted twice here: the counts
are for people to look at, the commit trusts receipts alone. Whoever takes up a unit says so first,
so that a unit whose worker dies is known to have been tried.
"""

import traceback
from collections import Counter

from pipeline.errors import NightjarError, UnexpectedError
from pipeline.work import Receipt, Tally


class Board:
    """What has been done so far."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self._failure: NightjarError | None = None
        self._attempts: Counter[tuple[str, str]] = Counter()

    def take_up(self, stage: str, unit: str) -> int:
        """A worker begins a stage of a unit: how often somebody has, this time included."""
        self._attempts[stage, unit] += 1
        return self._attempts[stage, unit]

    def add(self, receipt: Receipt) -> None:
        """Count a unit that was written."""
        self._tallies.setdefault(receipt.adapter, Tally()).add(receipt)

    def read(self) -> dict[str, Tally]:
        """The counts so far, by adapter."""
        return self._tallies

    def fail(self, error: NightjarError) -> None:
        """Keep the first failure: what follows is mostly its consequence."""
        self._failure = self._failure or error

    def failure(self) -> NightjarError | None:
        """The first failure."""
        return self._failure


def tellable(error: Exception) -> NightjarError:
    """An exception that travels between processes: ours as it is, another as what it said."""
    if isinstance(error, NightjarError):
        return error
    told = UnexpectedError(f"a worker failed: {type(error).__name__}: {error}")
    told.add_note("".join(traceback.format_exception(error)))
    return told
