"""Unit records: which attempt at a unit counts.

    <root>/work/<fingerprint 8>/<unit>.<revision>.json     create-only: the receipt

A worker writes a unit's files under names that no other attempt has, and then creates the record.
Of several attempts (retries by Ray, drivers that race for one output, a process thought dead) the
first record wins, and the files of the others are orphans that nobody reads. So a run that was
killed is resumed by running it again: units with a record are done, and their input is not opened.
Nothing here depends on a lease, on a clock, or on what Ray says it has done.

A record is void when its files are gone, condemned as garbage, or when it is damaged itself. It
stays void for ever, since a name is never written twice; the unit is done again under the next
revision.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipeline.folder import Folder, settle
from pipeline.log import generation
from pipeline.manifest import FOLDERS
from pipeline.work import Receipt

WORK = "work"
_RECORDS_AT_ONCE = 32
"""How many are read at a time: they are small, and the wait is all that they cost."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What has been done of some units."""

    receipts: dict[str, Receipt] = field(default_factory=dict)
    """Of the units that are done, by key."""
    revisions: dict[str, int] = field(default_factory=dict)
    """Which revision the next record of each unit is to have, by key."""

    @property
    def missing(self) -> list[str]:
        """Keys of the units that are not done."""
        return [unit for unit in self.revisions if unit not in self.receipts]


class Records:
    """The unit records of one dataset and fingerprint."""

    def __init__(self, folder: Folder, fingerprint: str) -> None:
        self._folder = folder
        self._generation = generation(fingerprint)
        # records never change, so each is read once
        self._read: dict[str, Receipt | None] = {}

    def record(self, receipt: Receipt, revision: int) -> Receipt:
        """Make a receipt the one that counts, unless another is there: the one that counts then.

        Raises:
            OSError: the store failed.
            ValueError: what is there is damaged.
        """
        name = self._name(receipt.unit, revision)
        return Receipt.from_json(settle(self._folder, name, receipt.to_json().encode()))

    def find(self, unit: str, revision: int) -> Receipt | None:
        """The receipt of a unit; None when there is none yet, or a damaged one."""
        name = self._name(unit, revision)
        try:
            return Receipt.from_json(self._folder.get(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("%s/%s is passed over: %s", self._folder.uri, name, error)
            return None

    def units(self) -> set[str]:
        """Keys of all units that have a record."""
        names = self._folder.names(f"{WORK}/{self._generation}")
        return {name.partition(".")[0] for name in names}

    def standing(self, units: Collection[str], void: Collection[str]) -> Standing:
        """Which units are done.

        Args:
            units: their keys.
            void: paths of files that may be deleted at any moment, or may not be used.
        """
        revisions = self._revisions(units)
        self._fetch((unit, revision) for unit, known in revisions.items() for revision in known)
        # listed after the records were: a file is there before its record
        sizes = {
            f"{kind}/{self._generation}/{name}": size
            for kind in FOLDERS
            for name, size in self._folder.sizes(f"{kind}/{self._generation}").items()
        }
        found, gone = Standing(), frozenset(void)
        for unit in units:
            known = sorted(revisions[unit])
            # the latest: it is there because the one before is void, or holds more
            latest = (self._read[self._name(unit, revision)] for revision in reversed(known))
            valid = (
                receipt
                for receipt in latest
                if receipt is not None
                and all(sizes.get(file.path) == file.size for file in receipt.files)
                and sizes.keys() >= set(receipt.refers)
                and gone.isdisjoint((*receipt.refers, *(f.path for f in receipt.files)))
            )
            found.revisions[unit] = known[-1] + 1 if known else 0
            receipt = next(valid, None)
            if receipt is not None:
                found.receipts[unit] = receipt
        return found

    def _revisions(self, units: Collection[str]) -> defaultdict[str, list[int]]:
        """The revisions of each unit that have a record."""
        wanted = set(units)
        revisions: defaultdict[str, list[int]] = defaultdict(list)
        for name in self._folder.names(f"{WORK}/{self._generation}"):
            unit, _, rest = name.partition(".")
            revision = rest.removesuffix(".json")
            if unit in wanted and revision.isdecimal():
                revisions[unit].append(int(revision))
        return revisions

    def _fetch(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Read the records that have not been read yet, many at a time."""
        new = [pair for pair in wanted if self._name(*pair) not in self._read]
        with ThreadPoolExecutor(_RECORDS_AT_ONCE) as pool:
            for pair, receipt in zip(new, pool.map(lambda p: self.find(*p), new), strict=True):
                self._read[self._name(*pair)] = receipt

    def _name(self, unit: str, revision: int) -> str:
        return f"{WORK}/{self._generation}/{unit}.{revision}.json"
