"""The small corpus, its vectors computed in one process, and a real Ray cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline import open_dataset
from pipeline.dataset import Dataset
from tests.end_to_end.clusters import Cluster, running_cluster
from tests.end_to_end.small_corpus import write_corpus, write_spec


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small corpus."""
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root)
    return root


@pytest.fixture
def spec(tmp_path: Path, corpus: Path, tiny_checkpoint: Path) -> Path:
    """A spec over the small corpus; its output is `out` beside it."""
    return write_spec(tmp_path / "spec.yaml", corpus, tiny_checkpoint, tmp_path / "out")


@pytest.fixture(scope="session")
def expected(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, tiny_checkpoint: Path
) -> Dataset:
    """The small corpus embedded without Ray."""
    root = tmp_path_factory.mktemp("expected")
    path = write_spec(root / "spec.yaml", corpus, tiny_checkpoint, root / "out")
    assert main(["embed", str(path), "--address", "none"]) == 0
    return open_dataset(str(root / "out"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head with one CPU."""
    with running_cluster(tmp_path_factory.mktemp("ray")) as running:
        yield running


@pytest.fixture(scope="session")
def two_nodes(cluster: Cluster) -> Cluster:
    """The same cluster, from now on with another raylet of one CPU."""
    cluster.add_node()
    return cluster
