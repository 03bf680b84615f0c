"""`nightjar show`: what a dataset holds, for a person."""

from typing import Any

from pipeline.dataset import list_versions, open_dataset, read_entry
from pipeline.storage import Folder

_LONGEST_CELL = 60


def run(uri: str, version: int | None, rows: int) -> None:
    """The command.

    Raises:
        OutputError: no dataset is there, or no such version.
    """
    dataset = open_dataset(uri, version)
    folder = Folder(uri)
    print(f"dataset      {uri}")
    for number in list_versions(folder):
        entry = read_entry(folder, number)
        mark = "*" if number == dataset.version else " "
        print(
            f"version {mark} {number:>3}  {entry.created_at}  {entry.rows:,} rows, "
            f"{entry.quarantined:,} quarantined"
        )
    fragments = dataset.fragments
    size = sum(fragment.size for fragment in fragments)
    print(f"files        {len(fragments)} Arrow files, {size / 1e6:,.1f} MB")
    print(f"fingerprint  {dataset.entry.fingerprint}")
    print("schema")
    for field in dataset.schema:
        print(f"  {field.name:<14} {field.type}")
    for row in dataset.head(rows).to_pylist():
        print("row")
        for name, value in row.items():
            print(f"  {name:<14} {_cell(value)}")


def _cell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return f"{len(value)} x {len(value[0])}  {_cell(value[0])} ..."
        return "[" + ", ".join(f"{number:.4f}" for number in value[:4]) + ", ...]"
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 3] + "..."
