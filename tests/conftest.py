"""What several rooms' tests share: a tiny checkpoint and an object store over HTTP."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import torch
import yaml
from hypothesis import settings
from moto.server import ThreadedMotoServer
from xdist.scheduler import LoadScopeScheduling

from pipeline import storage
from pipeline.model.geometry import tiny_geometry
from pipeline.model.random_checkpoint import write_random_checkpoint
from pipeline.stages.canaries import Canaries
from pipeline.stages.prepare import Prepare

# what a host remembers between runs (token budgets, copies of checkpoints) is kept below the home:
# the user's own is left alone, by this process and by those it starts
_home = tempfile.TemporaryDirectory(prefix="nightjar-home-")
os.environ["HOME"] = _home.name

# tiny models gain nothing from a second thread, and lose much where both cores are taken
torch.set_num_threads(1)

_ON_CLUSTERS = ("tests/chaos", "tests/end_to_end")

settings.register_profile("nightjar", deadline=None, max_examples=25)
settings.load_profile("nightjar")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the long tests run."""
    parser.addoption("--schedules", type=int, default=100, help="of the simulation")
    parser.addoption("--nights", type=int, default=56, help="one after the other, at least 56")
    parser.addoption("--rounds", type=int, default=2, help="in which real processes are killed")


class _ByFolder(LoadScopeScheduling):
    """A folder, and the servers its tests start, is one worker's; all clusters are one worker's.

    They are what takes longest, and they wait a lot: the other workers do the rest beside them.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.partition("::")[0].rpartition("/")[0]
        return "clusters" if folder in _ON_CLUSTERS else folder


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFolder:
    """How `pytest -n 2` shares the tests out."""
    return _ByFolder(config, log)


@pytest.fixture(scope="session")
def schedules(pytestconfig: pytest.Config) -> int:
    """How many schedules the simulation runs."""
    return int(pytestconfig.getoption("--schedules"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of hidden size 64, matryoshka_dims 16, 32 and 64."""
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_random_checkpoint(directory, tiny_geometry(64), seed=7)
    return directory


@pytest.fixture
def training_spec(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """An adapter on 59 pairs, and one that cannot be used."""
    asked = [f"what is {number}?" for number in range(60)]
    answers = [f"it is the number {number}" for number in range(59)] + [""]
    pq.write_table(pa.table({"query": asked, "positive": answers}), tmp_path / "pairs.parquet")
    plain = {
        "name": "numbers",
        "model": str(tiny_checkpoint),
        "adapter": {"name": "numbers"},
        "pairs": [{"uri": str(tmp_path / "pairs.parquet")}],
        "steps": 3,
        "batch": {"pairs": 8},
        "held_out": {"share": 0.2, "every": 2},
        "compute": {"threads": 1, "dtype": "float32"},
        "output": {"path": str(tmp_path / "trained")},
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A fake S3 that answers on the loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each unit that is prepared in this process from now on."""
    seen: list[int] = []
    original = Prepare.__call__

    def count(self: Prepare, rows: pa.Table) -> pa.Table:
        seen.append(rows.num_rows)
        return original(self, rows)

    monkeypatch.setattr(Prepare, "__call__", count)
    return seen


@pytest.fixture
def without_canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker of this process embeds canaries: what is broken or counted is what rows ask for."""
    monkeypatch.setattr(Canaries, "before", lambda *_: None)
    monkeypatch.setattr(Canaries, "after", lambda *_: None)


def forget_stores() -> None:
    """The next call makes a new client, with what the environment says then."""
    storage._filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A new bucket, as `s3://name`; the environment leads every client to the fake S3."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "dummy",
        "AWS_SECRET_ACCESS_KEY": "dummy",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    forget_stores()
    name = f"nightjar-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(name)
    yield f"s3://{name}"
    forget_stores()
