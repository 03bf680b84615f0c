"""A secret that workers of a real cluster resolve is told nobody, not even when the store tells."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline import storage
from pipeline.storage import locate
from tests.end_to_end.clusters import Finished, nightjar
from tests.faults.proxy import Rule, proxied
from tests.jobs import write_parquet, write_spec

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.s3, pytest.mark.timeout(600)]

_CANARY = "wJalrXUtnFEMI-canary-7MDENG"


@pytest.fixture
def session() -> Iterator[Path]:
    """Where Ray keeps its sockets, which need a short path, and its logs."""
    directory = Path(tempfile.mkdtemp(prefix="nj-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.fault("security.secrets")
def test_a_store_that_fails_in_a_worker_and_tells_the_secret_leaves_it_nowhere(
    bucket: str, s3_endpoint: str, session: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    source = write_parquet(tmp_path / "docs.parquet")
    output = {"uri": f"{bucket}/out", "single": {"dim": 32}}
    spec = write_spec(tmp_path, tiny_checkpoint, source, output)
    named = {"STORE_KEY": "testing", "STORE_SECRET": _CANARY, "RAY_TMPDIR": str(session)}
    with proxied(s3_endpoint) as proxy:
        # some units are written, then a worker is refused with the secret as the reason
        proxy.rules = [
            Rule(method="PUT", path="/data/", skip=2, fault="status", status=403, code=_CANARY)
        ]
        store = {
            "uri": bucket,
            "endpoint": proxy.endpoint,
            "region": "us-east-1",
            "path_style": True,
            "key": "env:STORE_KEY",
            "secret": "env:STORE_SECRET",
        }
        spec.write_text(json.dumps(yaml.safe_load(spec.read_text()) | {"storage": [store]}))
        pools = ("--set", "compute.pools={retrieval: {max: 1, cpus: 0.25}}")
        sliced = ("--set", "compute.unit_rows=1", "--address", "local")
        done = nightjar("embed", spec, *sliced, *pools, environment=named)
        assert done.code == 1, done.err
        assert proxy.rules[0].struck
    assert "***" in done.err, "the sentence is there, and the secret blotted out"
    _demand_nowhere(done, session, bucket)


def _demand_nowhere(done: Finished, session: Path, bucket: str) -> None:
    assert _CANARY not in done.out + done.err
    logs = [path for path in session.rglob("*") if path.is_file()]
    assert any(path.name.startswith("worker-") for path in logs), "Ray's logs are elsewhere"
    assert [str(path) for path in logs if _CANARY.encode() in path.read_bytes()] == []
    storage._filesystem.cache_clear()
    stored = locate(f"{bucket}/out")
    objects = stored.filesystem.find(stored.path)
    assert any(name.endswith("job.json") for name in objects)
    told = [n for n in objects if _CANARY.encode() in stored.filesystem.cat_file(n)]
    assert told == []
