"""A backfill whose points are written by the tasks of a real cluster."""

import os
from pathlib import Path

import pytest
import yaml

from jobs.cli import main
from tests.end_to_end.clusters import Cluster, nightjar
from tests.index.corpus import Corpus, names

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

_FILES, _ROWS = 14, 4000


def test_many_rows_are_written_by_tasks_and_the_store_holds_the_snapshot(
    tmp_path: Path, cluster: Cluster
) -> None:
    # relative to this process, and not to those of the cluster
    url = os.path.relpath(tmp_path / "store")
    corpus = Corpus(root=tmp_path / "dataset")
    for number in range(_FILES):
        corpus.add(names(_ROWS, f"f{number}-"), embedding=[1.0] + [0.0] * 15, multivector=None)
    corpus.commit()
    spec = tmp_path / "backfill.yaml"
    store = {"kind": "lancedb", "url": url, "collection": "docs"}
    spec.write_text(yaml.safe_dump({"dataset": {"uri": str(corpus.root)}, "store": store}))
    done = nightjar("backfill", str(spec), "--address", cluster.address)
    assert done.code == 0, done.err
    assert f"{_FILES * _ROWS:,} points of version 1, new collection" in done.out
    assert main(["audit", str(spec), "--rows", "100"]) == 0
