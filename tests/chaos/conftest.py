"""A cluster of two raylets before a store that can fail, a corpus with all it must become, and what
long runs are watched with."""

import logging
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from pipeline import open_dataset
from pipeline.dataset import Dataset
from pipeline.folder import Folder
from pipeline.log import generation
from pipeline.model.engine import Engine
from pipeline.records import WORK
from tests.chaos.corpus import Expected, write_corpus, write_spec
from tests.chaos.nodes import Nodes
from tests.chaos.oracle import demand_equal, demand_expected
from tests.end_to_end.clusters import ENVIRONMENT, running_cluster
from tests.faults.proxy import Proxy, proxied

_SOON_NOTICED = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A corpus on disk."""

    root: Path
    """Where its shards are."""
    expected: Expected
    """By whoever made it."""
    oracle: Dataset
    """Of one process without Ray."""

    def recorded(self, output: str) -> int:
        """How many units have a record in a dataset of it."""
        return len(Folder(output).names(f"{WORK}/{generation(self.oracle.entry.fingerprint)}"))

    def demand_right(self, output: str) -> None:
        """A dataset of it holds every item once, with the oracle's vectors, in whole files."""
        dataset = open_dataset(output)
        demand_expected(dataset, self.expected)
        demand_equal(dataset, self.oracle)
        assert main(["verify", output]) == 0, "a file is damaged or gone"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Corpus:
    """The corpus of all rounds."""
    root = tmp_path_factory.mktemp("chaos")
    expected = write_corpus(root / "corpus", seed=1)
    output = str(root / "oracle")
    spec = write_spec(root / "spec.yaml", root / "corpus", tiny_checkpoint, output)
    assert main(["embed", str(spec), "--address", "none"]) == 0
    return Corpus(root=root / "corpus", expected=expected, oracle=open_dataset(output))


@pytest.fixture(scope="session")
def proxy(s3_endpoint: str) -> Iterator[Proxy]:
    """What all drivers and workers take for the store."""
    # a line for each request would bury what a failing round tells
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with proxied(s3_endpoint) as found:
        yield found


@pytest.fixture(scope="session")
def environment(proxy: Proxy) -> Mapping[str, str]:
    """Of all drivers and workers."""
    return {
        **ENVIRONMENT,
        "AWS_ACCESS_KEY_ID": "dummy",
        "AWS_SECRET_ACCESS_KEY": "dummy",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": proxy.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="package")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]
) -> Iterator[Nodes]:
    """A cluster of two raylets."""
    logs = tmp_path_factory.mktemp("ray")
    with running_cluster(logs, environment=environment, system_config=_SOON_NOTICED) as cluster:
        found = Nodes(cluster)
        yield found
        found.close()


@pytest.fixture
def traced() -> Iterator[None]:
    """Python's allocations are counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each call of the network was given."""
    counts: list[int] = []
    embed = Engine.embed

    def counted(self: Engine, items: Any, *arguments: Any, **named: Any) -> Any:
        counts.append(len(items))
        return embed(self, items, *arguments, **named)

    monkeypatch.setattr(Engine, "embed", counted)
    return counts
