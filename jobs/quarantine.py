"""`nightjar quarantine`: what was set aside, by reason, with examples."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.printed import brief, printed
from pipeline.dataset import Dataset

_LONGEST_MESSAGE = 100


def run(dataset: Dataset, examples: int, as_json: bool) -> None:
    """The command."""
    reasons = _reasons(dataset.quarantine(), examples)
    if as_json:
        print(json.dumps({"version": dataset.version, "reasons": reasons}, indent=2))
        return
    total = sum(reason["items"] for reason in reasons)
    print(f"version {dataset.version}: {dataset.count():,} embedded, {total:,} set aside")
    for reason in reasons:
        print(f"{reason['items']:>8,}  {printed(reason['reason'])}")
        for example in reason["examples"]:
            message = brief(example["message"], _LONGEST_MESSAGE)
            print(f"{'':>10}{printed(example['id'])}  {message}")
            print(f"{'':>10}{printed(example['locator'])}")


def _reasons(aside: pa.Table, examples: int) -> list[dict[str, Any]]:
    """Each reason with how many it has, most first, and its first items."""
    counts = pc.value_counts(aside["reason"]).to_pylist()
    ordered = sorted(counts, key=lambda found: (-found["counts"], found["values"]))
    return [
        {
            "reason": found["values"],
            "items": found["counts"],
            "examples": _first(aside.filter(pc.field("reason") == found["values"]), examples),
        }
        for found in ordered
    ]


def _first(aside: pa.Table, examples: int) -> list[dict[str, str]]:
    shown = aside.select(["id", "locator", "message"]).slice(0, examples)
    return [{name: str(value) for name, value in row.items()} for row in shown.to_pylist()]
