"""Pools on a real cluster whose nodes come and go, with pretended GPUs: the model is tiny, and to
load it and to embed a unit takes the time that is named."""

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.deeds import PRETENDED, Deed, deeds
from pipeline import open_dataset
from tests.chaos.nodes import kill_tree
from tests.end_to_end.clusters import (
    ENVIRONMENT,
    Cluster,
    Finished,
    nightjar,
    running_cluster,
    wait_until,
)
from tests.jobs import write_spec

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

_UNIT_ROWS = 4
WriteSpec = Callable[..., Path]
"""Writes a spec of so many units for each adapter."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A folder in which every actor says what it does."""
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(log: Path) -> Mapping[str, str]:
    return {
        **ENVIRONMENT,
        "PYTHONPATH": f"{PRETENDED}{os.pathsep}{Path.cwd()}",
        "PRETENDED_LOAD": "2",
        "PRETENDED_UNIT": "0.5",
        "PRETENDED_LOG": str(log),
        # whose `python` a job is run by, as in an image
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def _loads(log: Path) -> list[Deed]:
    return deeds(log, "loaded")


def _units(log: Path) -> list[Deed]:
    return deeds(log, "unit")


@pytest.fixture
def spec(tmp_path: Path, tiny_checkpoint: Path) -> WriteSpec:
    def write(**units: int) -> Path:
        sources = []
        for adapter, count in units.items():
            path, rows = tmp_path / f"{adapter}.parquet", count * _UNIT_ROWS
            ids = [f"{adapter}-{row}" for row in range(rows)]
            pq.write_table(pa.table({"doc": ids, "body": ids}), path)
            source = {"uri": str(path), "format": "parquet", "id": "doc", "text": "body"}
            sources.append({**source, "task": f"{adapter}.passage"})
        path = write_spec(tmp_path, tiny_checkpoint, sources)
        plain = json.loads(path.read_text())
        path.write_text(json.dumps({**plain, "compute": {"unit_rows": _UNIT_ROWS}}))
        return path

    return write


@contextmanager
def _in_mid_run(spec: Path, cluster: Cluster, log: Path) -> Iterator[None]:
    """Within it a submitted job goes on; afterwards it has ended, and all rows are there once."""
    ended: list[Finished] = []

    def run() -> None:
        ended.append(nightjar("submit", spec, "--address", cluster.dashboard))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: len(_units(log)) >= 8, "the run to be in full swing", seconds=240)
    yield
    thread.join(300)
    (done,) = ended
    assert done.code == 0, done.out + done.err
    ids = open_dataset(str(spec.parent / "out")).to_table(["id"])["id"].to_pylist()
    rows = sum(pq.read_metadata(shard).num_rows for shard in spec.parent.glob("*.parquet"))
    assert len(ids) == len(set(ids)) == rows


def test_a_pool_takes_the_gpu_of_a_node_that_is_added_and_leaves_it_when_that_is_told_to_go(
    spec: WriteSpec, environment: Mapping[str, str], log: Path, tmp_path: Path
) -> None:
    def by_node() -> Counter[str]:
        return Counter(unit.node for unit in _units(log))

    with (
        running_cluster(tmp_path, environment=environment, dashboard=True, gpus=1) as cluster,
        _in_mid_run(spec(retrieval=200), cluster, log),
    ):
        other = cluster.add_node()
        wait_until(lambda: len(_loads(log)) == 2, "the second load of the model")
        first, second = (load.node for load in _loads(log))
        wait_until(lambda: by_node()[second] > 5, "it to be used")
        # as Kubernetes does before it deletes a pod, and a spot node's own watcher
        told = time.time()
        other.terminate()
        other.wait(timeout=60)
    assert len(_units(log)) == 200, "each unit was embedded once"
    assert len(_loads(log)) == 2
    assert {unit.node for unit in _units(log) if unit.when > told + 5} == {first}


def test_an_adapter_that_is_done_leaves_its_gpu_to_the_other_and_a_lost_node_loses_nothing(
    spec: WriteSpec, environment: Mapping[str, str], log: Path, tmp_path: Path
) -> None:
    with running_cluster(tmp_path, environment=environment, dashboard=True, gpus=1) as cluster:
        other = cluster.add_node()
        with _in_mid_run(spec(retrieval=120, code=6), cluster, log):
            wait_until(lambda: len(_loads(log)) == 3, "the third load of the model")
            third = _loads(log)[2]
            wait_until(lambda: _units(log)[-1].node == third.node, "it to be used")
            kill_tree(other)
    loads = _loads(log)
    assert [load.adapter for load in loads][:3].count("code") == 1
    (of_code,) = (load for load in loads if load.adapter == "code")
    assert (third.adapter, third.node) == ("retrieval", of_code.node)
    # what it held and nobody had written is done again, and nothing else
    assert 126 <= len(_units(log)) <= 126 + 6


@pytest.mark.long
def test_an_autoscaler_is_asked_for_all_nodes_at_once(
    spec: WriteSpec, environment: Mapping[str, str], log: Path, tmp_path: Path
) -> None:
    wanted = ("--set", "compute.pools={retrieval: {gpus: 1}}")
    with running_cluster(tmp_path, environment=environment, autoscaled=2) as cluster:
        job = ("embed", spec(retrieval=60), "--address", cluster.address, *wanted)
        refused = nightjar(*job, environment=environment)
        assert refused.code == 2
        assert "where an autoscaler adds some, compute.grows_to says how many" in refused.err
        growth = ("--set", "compute.grows_to={gpus: 2}")
        done = nightjar(*job, *growth, environment=environment)
        assert done.code == 0, done.err
        assert "pools: retrieval with 2 actors of 1 GPU" in done.err
        launched = (cluster.session / "session_latest/logs/monitor.log").read_text()
        assert "Queue 2 new nodes for launch" in launched
    assert len({load.node for load in _loads(log)}) == 2
