"""nano's model card tells what was measured: its tables are made of the newest record.

    python -m benchmarks.model_card pipeline/nano/checkpoint/README.md

What is between a table's first line and the next empty line is replaced, and so are the fingerprint
and the texts of a second; the rest of the card is written by hand.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.tasks import ADAPTERS

RESULTS = Path(__file__).parent / "results"

_FOUND = "| answers | asked in | queries |"
_SIZES = "| answers | asked in | 32 |"
_TASKS = "| task | sets |"
_GRADES = "| size |"
PART = "without a word in common"
"""Queries of another row, which do not count twice."""
_DIMS = (32, 64, 128, 256)
_TEACHER = "sentence-transformers, all-MiniLM-L6-v2"


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite the tables of a card."""
    (card,) = map(Path, sys.argv[1:] if arguments is None else arguments)
    record = json.loads(newest().read_text())
    card.write_text(told(card.read_text(), record))


def newest() -> Path:
    """The newest record of nano."""
    return sorted(RESULTS.glob("*-nano-*.json"))[-1]


def told(card: str, record: Mapping[str, Any]) -> str:
    """A card with the numbers of a record.

    Raises:
        ValueError: the card has no place for them.
    """
    rates = record["speed"]["per_second"]
    found = "\n".join(
        [
            f"{_FOUND} candidates | multi-vectors | single, 256 | BM25 | untrained, multi | best "
            "wrong adapter, multi |",
            "|---" * 9 + "|",
            *map(_row, record["found"]),
        ]
    )
    sizes = "\n".join(
        [f"{_SIZES} 64 | 128 | 256 |", "|---" * 6 + "|", *map(_curve, record["found"])]
    )
    tasks = "\n".join(
        [
            f"{_TASKS} vectors | {' | '.join(f'with `{adapter}`' for adapter in ADAPTERS)} |",
            "|---" * 6 + "|",
            *(_task(task, way, record) for task in ADAPTERS for way in record["ahead"]),
        ]
    )
    grades = "\n".join(
        [
            f"{_GRADES} {' | '.join(f'with `{adapter}`' for adapter in ADAPTERS)} | untrained |",
            "|---" * 5 + "|",
            *(_grades(size, record) for size in _DIMS),
        ]
    )
    for pattern, new in (
        (rf"{re.escape(_FOUND)}.*?(?=\n\n)", found),
        (rf"{re.escape(_SIZES)}.*?(?=\n\n)", sizes),
        (rf"{re.escape(_TASKS)}.*?(?=\n\n)", tasks),
        (rf"{re.escape(_GRADES)}.*?(?=\n\n)", grades),
        (r"(?<=fingerprint `)[0-9a-f]+", record["fingerprint"]),
        (
            r"(?<=in turns: )[\d,]+; .*? [\d,]+(?=\.)",
            f"{rates['nightjar']:,.0f}; all-MiniLM-L6-v2 with sentence-transformers "
            f"{rates[_TEACHER]:,.0f}",
        ),
    ):
        card, count = re.subn(pattern, new.replace("\\", r"\\"), card, flags=re.S)
        if count != 1:
            raise ValueError(f"the card has {count} places for {new[:40]!r}, not one")
    return card


def _row(row: Mapping[str, Any]) -> str:
    ways: Mapping[str, Any] = row["ndcg"]
    wrong = {way: w["mean"] for way, w in ways.items() if re.match(r"nano with .*, multi$", way)}
    best = max(wrong, key=lambda way: wrong[way])
    adapter = best.removeprefix("nano with ").removesuffix(", multi")
    cells = [
        *(row["set"], row["asked"], f"{row['queries']:,}", f"{row['answers']:,}"),
        *(_interval(ways.get(way)) for way in ("nano, multi", "nano, single 256", "BM25")),
        f"{ways['untrained, multi']['mean']:.3f}",
        f"{wrong[best]:.3f} ({adapter})",
    ]
    return f"| {' | '.join(cells)} |"


def _task(task: str, way: str, record: Mapping[str, Any]) -> str:
    """The mean over the sets of a task, with each adapter, and how far the others are behind."""
    rows = [row for row in record["found"] if row["adapter"] == task and PART not in row["asked"]]
    cells = [task, str(len(rows)), way]
    for adapter in ADAPTERS:
        who = "nano" if adapter == task else f"nano with {adapter}"
        mean = sum(row["ndcg"][f"{who}, {way}"]["mean"] for row in rows) / len(rows)
        behind = ""
        if adapter != task:
            low, high = record["ahead"][way][task][adapter]["interval"]
            behind = f" ({low:+.3f} to {high:+.3f})"
        cells.append(f"{mean:.3f}{behind}")
    return f"| {' | '.join(cells)} |"


def _grades(size: int, record: Mapping[str, Any]) -> str:
    """How well cosines of one size follow the grades, with each adapter and untrained."""
    found = record["graded"]["spearman"]
    ways = [found[f"nano with {adapter}"] for adapter in ADAPTERS] + [found["untrained"]]
    return f"| {size} | {' | '.join(_interval(way[f'single {size}']) for way in ways)} |"


def _curve(row: Mapping[str, Any]) -> str:
    means = [f"{row['ndcg'][f'nano, single {dim}']['mean']:.3f}" for dim in _DIMS]
    return f"| {' | '.join([row['set'], row['asked'], *means])} |"


def _interval(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return ""
    low, high = value["interval"]
    return f"{value['mean']:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
