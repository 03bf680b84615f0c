"""`nightjar show`: what a dataset holds, for a person."""

from collections import Counter
from typing import Any

from jobs.printed import brief, printed
from pipeline.dataset import Dataset

_LONGEST_CELL = 64


def run(dataset: Dataset, rows: int) -> None:
    """The command."""
    entry = dataset.entry
    print(f"dataset      {dataset.uri}")
    print(f"version      {dataset.version}, committed {entry.created_at}")
    print(f"rows         {entry.rows:,}, and {entry.quarantined:,} quarantined")
    fragments = dataset.fragments
    size = sum(fragment.size for fragment in fragments)
    print(f"files        {len(fragments)} of Arrow IPC, {size / 1e6:,.3f} MB")
    print(f"fingerprint  {entry.fingerprint}")
    print("schema")
    for field in dataset.schema:
        print(f"  {printed(field.name):<14} {printed(field.type)}")
    if entry.quarantined:
        _show_quarantine(dataset, rows)
    for row in dataset.head(rows).to_pylist():
        print("row")
        for name, value in row.items():
            embedding = name == "multivector" or name.startswith("embedding")
            vectors = embedding and isinstance(value, list)
            shown = _vectors(value) if vectors else brief(value, _LONGEST_CELL)
            print(f"  {printed(name):<14} {shown}")


def _show_quarantine(dataset: Dataset, rows: int) -> None:
    table = dataset.quarantine()
    counts = Counter(table["reason"].to_pylist())
    reasons = ", ".join(f"{n:,} {printed(reason)}" for reason, n in counts.most_common())
    print(f"quarantine   {reasons}")
    for row in table.slice(0, rows).to_pylist():
        item, message = (brief(row[name], _LONGEST_CELL) for name in ("id", "message"))
        print(f"  {item}  {printed(row['reason'])}: {message}")
        print(f"    {printed(row['locator'])}")


def _vectors(value: list[Any]) -> str:
    if value and isinstance(value[0], list):
        # the last: the first ones are of the prompt, the same in every row
        return f"{len(value)} x {len(value[0])}, the last {_vectors(value[-1])}"
    return "[" + ", ".join(f"{number:.4f}" for number in value[:4]) + ", ...]"
