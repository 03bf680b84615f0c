"""What a night would do, in full, so that two ways of comparing can be held against each other;
and a program that prints it: `python -m tests.end_to_end.planned SPEC ADDRESS [SETTING ...]`.
"""

import json
import sys
from dataclasses import asdict
from typing import Any

from jobs.accounts import Account
from jobs.devices import devices
from jobs.embed import check
from jobs.nightly import night_of
from pipeline.driver import Wanted
from pipeline.log import newest_entry
from pipeline.manifest import read_void
from pipeline.spec_file import load_spec
from pipeline.stages import ray_compare

PARTITION_ROWS = 16
"""So that a small corpus has several partitions, where the driver is this process."""


def plan(spec: str, address: str, *settings: str) -> str:
    """The plan as one line of JSON."""
    job = check(load_spec(spec, settings), anew=True, writes=False)
    account = Account(command="plan", price=None)
    with devices(job.spec, job.plan, job.recipes_that_fit(), address, account) as there:
        night, newest = night_of(job, there), newest_entry(job.folder)
        wanted = night.wanted(newest, read_void(job.folder, newest))
        found = _plain(wanted) | {"counts": asdict(night.counts(newest))}
    return json.dumps(found, sort_keys=True)


def _plain(wanted: Wanted) -> dict[str, Any]:
    return {
        "units": [asdict(unit) for unit in wanted.units],
        "carried": [asdict(part) for part in wanted.carried],
        "known": sorted(wanted.known),
        "items": wanted.items,
        # with no receipts: what is linked to vectors that are there, and what is left over
        "rest": [asdict(unit) for unit in wanted.rest({})],
    }


if __name__ == "__main__":
    ray_compare._PARTITION_ROWS = PARTITION_ROWS
    print(plan(*sys.argv[1:]))
