"""What a cluster can lose beside its processes: its head, a node with notice, the model itself."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.folder import Folder
from pipeline.log import list_versions
from pipeline.model.geometry import tiny_geometry
from pipeline.model.random_checkpoint import write_random_checkpoint
from pipeline.stages.cluster import connected
from pipeline.stages.holding import progress, put_up
from tests.chaos.conftest import Corpus
from tests.chaos.corpus import write_spec
from tests.chaos.nodes import kill_tree
from tests.end_to_end.clusters import ENVIRONMENT, Cluster, nightjar, running_cluster, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

_HUB_ID = "nobody/embeddings"
_NOTICE = 5
"""Seconds between the notice and the loss of the node."""
_BOARDS = 8
"""Of which Ray would place some on either of two nodes."""
_LONGEST = 240.0
"""Seconds of anything here, above which it hangs."""


@pytest.fixture
def spec(corpus: Corpus, tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A job over all of it; its output is `out` beside it."""
    output = str(tmp_path / "out")
    return write_spec(tmp_path / "spec.yaml", corpus.root, tiny_checkpoint, output)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head with one CPU, which nobody kills."""
    with running_cluster(tmp_path_factory.mktemp("ray")) as running:
        yield running


@pytest.mark.fault("compute.constructor")
def test_an_actor_that_cannot_have_the_model_fails_the_run_in_one_sentence(
    spec: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    _write_hub_cache(ours, seed=7)
    # what the hosts have under the same name differs only in its weights
    _write_hub_cache(theirs, seed=8)
    with running_cluster(tmp_path, environment=_offline(theirs)) as cluster:
        named = ("--set", f"model.path={_HUB_ID}", "--address", cluster.address)
        done = nightjar("embed", spec, *named, environment=_offline(ours))
    assert done.code == 2
    assert "is not the file that the run was planned with" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert list_versions(Folder(str(tmp_path / "out"))) == []


@pytest.mark.fault("compute.preempted")
def test_a_node_taken_away_with_notice_is_survived(
    corpus: Corpus, spec: Path, cluster: Cluster
) -> None:
    node = cluster.add_node()
    with _at_work(spec, cluster, corpus) as driver:
        _give_notice(cluster)
        time.sleep(_NOTICE)
        kill_tree(node)
        assert driver.wait(_LONGEST) == 0
    corpus.demand_right(str(spec.parent / "out"))


def test_what_a_run_cannot_do_without_is_on_no_node_that_can_be_lost(cluster: Cluster) -> None:
    node = cluster.add_node()
    with connected(cluster.address):
        boards = [put_up() for _ in range(_BOARDS)]
        assert None not in [progress(board) for board in boards]
        kill_tree(node)
        assert None not in [progress(board) for board in boards]


@pytest.mark.fault("compute.head_lost")
def test_without_its_head_a_run_fails_and_goes_on_in_another_cluster(
    corpus: Corpus, spec: Path, cluster: Cluster, tmp_path: Path
) -> None:
    with running_cluster(tmp_path) as doomed, _at_work(spec, doomed, corpus) as driver:
        kill_tree(doomed.head)
        assert driver.wait(_LONGEST) == 1
    assert "nightjar: the head of the cluster" in spec.with_suffix(".log").read_text()
    assert list_versions(Folder(str(tmp_path / "out"))) == []
    assert corpus.recorded(str(tmp_path / "out"))
    finished = nightjar("embed", spec, "--address", cluster.address)
    assert finished.code == 0, finished.err
    assert "were done by an earlier run" in finished.err
    corpus.demand_right(str(spec.parent / "out"))


def _offline(cache: Path) -> Mapping[str, str]:
    return {**ENVIRONMENT, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}


def _write_hub_cache(home: Path, seed: int) -> None:
    """A checkpoint as huggingface_hub keeps what it has fetched."""
    model = home / "hub" / f"models--{_HUB_ID.replace('/', '--')}"
    commit = "0" * 40
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text(commit)
    write_random_checkpoint(model / "snapshots" / commit, tiny_geometry(64), seed=seed)


@contextmanager
def _at_work(spec: Path, cluster: Cluster, corpus: Corpus) -> Iterator[subprocess.Popen[bytes]]:
    """A driver that has recorded its first units, and has not finished."""
    log = spec.with_suffix(".log")
    command = [sys.executable, "-m", "jobs.cli", "embed", str(spec), "--address", cluster.address]
    with log.open("wb") as sink:
        driver = subprocess.Popen(command, env=ENVIRONMENT, stdout=sink, stderr=sink)
    output = str(spec.parent / "out")
    try:
        wait_until(lambda: corpus.recorded(output) > 0, "a first record", _LONGEST)
        assert driver.poll() is None, log.read_text()
        yield driver
    finally:
        driver.kill()
        driver.wait()


def _give_notice(cluster: Cluster) -> None:
    """Tell the cluster, as a cloud does, that the node that is not the head will be gone."""
    script = f"""
import ray
ray.init({cluster.address!r}, log_to_driver=False)
others = [n for n in ray.nodes() if n["Alive"] and "node:__internal_head__" not in n["Resources"]]
[node] = [n["NodeID"] for n in others]
print(node)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
            f"--address={cluster.address}",
            f"--node-id={found.stdout.strip()}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message=test",
            f"--deadline-remaining-seconds={_NOTICE}",
        ],
        env=ENVIRONMENT,
        capture_output=True,
        check=True,
    )
