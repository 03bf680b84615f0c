"""A run over bad rows among good ones, and the same without the bad ones, as their oracle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import open_dataset
from tests.jobs import embed, write_spec

Rows = dict[Any, dict[str, Any]]
"""By id."""

EMBEDDED, TRUNCATED = "embedded", "embedded and truncated"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of the rows."""

    embedded: Rows
    """With their vectors."""
    aside: Rows
    """With their reasons."""
    neighbours: Rows
    """The good rows, embedded without the bad ones."""

    def demand(self, name: str, expected: str) -> None:
        """A bad row has that outcome and no other, and the rows beside it did not notice."""
        if expected in (EMBEDDED, TRUNCATED):
            assert name not in self.aside
            assert self.embedded[name]["truncated"] == (expected == TRUNCATED)
        else:
            assert name not in self.embedded
            assert self.aside[name]["reason"] == expected
            assert self.aside[name]["message"]
            assert self.aside[name]["locator"]
        for side in ("before", "after"):
            found, alone = (rows[f"{side} {name}"] for rows in (self.embedded, self.neighbours))
            for column in ("embedding", "multivector"):
                np.testing.assert_allclose(found[column], alone[column], rtol=0, atol=1e-5)


def surrounded(cells: dict[str, Any], good: Sequence[Any]) -> list[tuple[str, Any]]:
    """(id, cell): each bad cell between two good ones."""
    rows: list[tuple[str, Any]] = []
    for at, (name, cell) in enumerate(cells.items()):
        before, after = good[2 * at % len(good)], good[(2 * at + 1) % len(good)]
        rows += [(f"before {name}", before), (name, cell), (f"after {name}", after)]
    return rows


def run(
    directory: Path, checkpoint: Path, source: dict[str, Any], neighbours: dict[str, Any]
) -> Outcome:
    """Embed both sources, each as one unit.

    Args:
        directory: for the datasets.
        checkpoint: a tiny one.
        source: with the bad rows.
        neighbours: the same without them.
    """
    found = []
    for name, chosen in (("bad", source), ("good", neighbours)):
        place = directory / name
        place.mkdir()
        spec = write_spec(place, checkpoint, chosen)
        assert embed(spec, "--set", "compute.unit_rows=10000") == 0
        dataset = open_dataset(str(place / "out"))
        assert len(dataset.fragments) == 1, "all neighbours are in one unit"
        found.append(dataset)
    bad, good = found
    return Outcome(
        embedded={row["id"]: row for row in bad.to_table().to_pylist()},
        aside={row["id"]: row for row in bad.quarantine().to_pylist()},
        neighbours={row["id"]: row for row in good.to_table().to_pylist()},
    )


def run_parquet(
    directory: Path, checkpoint: Path, column: str, rows: Sequence[tuple[str, Any]], bad: set[str]
) -> Outcome:
    """A run over Parquet shards.

    Args:
        directory: for everything.
        checkpoint: a tiny one.
        column: `text`, whose cells become strings without a look at their bytes, or `image`.
        rows: (id, cell), cells as bytes.
        bad: ids of the bad rows.
    """

    def write(name: str, chosen: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        cells = pa.array([cell for _, cell in chosen], pa.binary())
        table = pa.table(
            {
                "name": [name for name, _ in chosen],
                column: cells.view(pa.string()) if column == "text" else cells,
            }
        )
        pq.write_table(table, directory / name)
        return {
            "uri": str(directory / name),
            "format": "parquet",
            "id": "name",
            column: column,
            "task": "retrieval.passage",
        }

    return run(
        directory,
        checkpoint,
        write("bad.parquet", rows),
        write("good.parquet", [row for row in rows if row[0] not in bad]),
    )
