"""Many nights of 1 % churn: memory is flat, and what is written is only what is wanted.

`pytest tests/chaos/test_many_nights.py --nights 100` is what `make test-long` does.
"""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.dataset import open_dataset
from pipeline.folder import Folder
from pipeline.garbage import KEPT_SNAPSHOTS
from pipeline.log import LOG, list_versions
from tests.chaos.leftovers import files_of, garbage_of
from tests.chaos.readings import Reading, demand_flat
from tests.jobs import write_spec

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

_SHARDS, _ROWS = 4, 50
_CHANGES = _SHARDS * _ROWS // 100
_QUIET_EVERY, _COLLECTED_EVERY = 10, 7


class Corpus:
    """Rows by shard, which change a little every day."""

    def __init__(self, root: Path) -> None:
        self._root, self._chosen, self._edits = root, random.Random(3), 0
        self.shards = [
            {shard * 1000 + row: f"text {shard} {row}" for row in range(_ROWS)}
            for shard in range(_SHARDS)
        ]
        root.mkdir()
        for shard in range(_SHARDS):
            self._write(shard)

    def change(self) -> None:
        """1 % of all rows are edited, or gone and as many are new."""
        shard = self._chosen.randrange(_SHARDS)
        rows = self.shards[shard]
        for name in self._chosen.sample(sorted(rows), _CHANGES):
            self._edits += 1
            if self._chosen.random() < 0.5:
                del rows[name]
                name = 1_000_000 + self._edits
            rows[name] = f"edited {self._edits} times"
        self._write(shard)

    @property
    def rows(self) -> dict[int, str]:
        """All rows."""
        return {name: text for shard in self.shards for name, text in shard.items()}

    def _write(self, shard: int) -> None:
        rows = self.shards[shard]
        table = pa.table({"doc": list(rows), "body": list(rows.values())})
        pq.write_table(table, self._root / f"{shard}.parquet")


@pytest.mark.usefixtures("without_canaries", "traced")
def test_many_nights_leave_what_they_must_and_no_more(
    tmp_path: Path,
    tiny_checkpoint: Path,
    passes: list[int],
    capsys: pytest.CaptureFixture[str],
    pytestconfig: pytest.Config,
) -> None:
    nights: int = pytestconfig.getoption("--nights")
    corpus = Corpus(tmp_path / "docs")
    source = {
        "uri": f"{tmp_path}/docs/*.parquet",
        "format": "parquet",
        "id": "doc",
        "text": "body",
        "task": "retrieval.passage",
    }
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    folder, readings, sizes = Folder(str(tmp_path / "out")), [], []
    for night in range(nights):
        is_quiet = night % _QUIET_EVERY == _QUIET_EVERY - 1
        if night and not is_quiet:
            corpus.change()
        before, versions = files_of(folder), list_versions(folder)
        passes.clear()
        capsys.readouterr()
        assert main(["nightly", str(spec), "--address", "none", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        if is_quiet:
            assert (passes, files_of(folder), list_versions(folder)) == ([], before, versions)
        elif night:
            assert sum(passes) == _CHANGES, "what has changed, and nothing else"
        assert report["up_to_date"] is is_quiet
        assert _ids(folder.uri) == corpus.rows.keys()
        if night % _COLLECTED_EVERY == _COLLECTED_EVERY - 1:
            assert main(["gc", folder.uri, "--delete"]) == 0
            assert garbage_of(folder, keep=KEPT_SNAPSHOTS) == []
            sizes.append(_stored(folder))
        readings.append(Reading.take())
    demand_flat(readings, loading=1 - 1 / _QUIET_EVERY)
    # after ten nights there are as many old snapshots as there ever will be
    assert max(sizes[-3:]) < 1.5 * max(sizes[2:5]), sizes
    entries = [folder.get(f"{LOG}/{name}") for name in folder.names(LOG)]
    changed = nights - nights // _QUIET_EVERY
    collected = nights // _COLLECTED_EVERY
    assert changed < len(entries) <= changed + collected, "one for each that did something"
    assert max(map(len, entries)) < 1.1 * min(map(len, entries)), "none repeats those before it"


def _ids(uri: str) -> set[int]:
    return set(open_dataset(uri).to_table(["id"])["id"].to_pylist())


def _stored(folder: Folder) -> int:
    """Bytes of all files that a snapshot may name."""
    kinds = ("data", "links", "quarantine")
    places = [f"{kind}/{made}" for kind in kinds for made in folder.folders(kind)]
    return sum(size for place in places for size in folder.sizes(place).values())
