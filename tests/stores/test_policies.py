"""Least privilege: with its policy of infra/policies/ each role does its work, and no more."""

import io
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.folder import Folder
from pipeline.log import list_versions
from tests.conftest import forget_stores
from tests.faults.proxy import Rule, proxied
from tests.jobs import embed, write_spec
from tests.stores.ceph import Gateway
from tests.stores.roles import POLICIES, ROLES, Lake, moto_lake, read_policy, rgw_lake

pytestmark = pytest.mark.s3

Become = Callable[[str], None]


@pytest.fixture(params=["moto", pytest.param("rgw", marks=pytest.mark.system)])
def lake(request: pytest.FixtureRequest, bucket: str, s3_endpoint: str) -> Iterator[Lake]:
    """A lake, empty."""
    if request.param == "moto":
        with moto_lake(bucket.removeprefix("s3://"), s3_endpoint) as found:
            yield found
    else:
        gateway: Gateway = request.getfixturevalue("rgw")
        yield rgw_lake(gateway)


@pytest.fixture
def become(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Become:
    """From now on this process is that role, by its environment."""

    def change(role: str) -> None:
        key, secret = lake.keys[role]
        monkeypatch.setenv("AWS_ENDPOINT_URL", lake.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        forget_stores()

    return change


@pytest.fixture
def spec(lake: Lake, become: Become, tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A job over three texts and a null, which its owner has put there."""
    become("owner")
    shard = io.BytesIO()
    texts = ["one owl", "two owls", None, "many owls"]
    pq.write_table(pa.table({"doc": pa.array(range(4)), "body": texts}), shard)
    Folder(lake.source).put("a.parquet", shard.getvalue())
    Folder(f"s3://{lake.bucket}/private").put("a", b"of nobody's concern")
    source = {
        "uri": f"{lake.source}/*.parquet",
        "format": "parquet",
        "id": "doc",
        "text": "body",
        "task": "retrieval.passage",
    }
    return write_spec(tmp_path, tiny_checkpoint, source, {"uri": lake.output})


@pytest.fixture
def dataset(lake: Lake, spec: Path, become: Become) -> Folder:
    """What the embedder has made of it."""
    become("embedder")
    assert embed(spec) == 0
    return Folder(lake.output)


def _paths(folder: Folder, kind: str) -> list[str]:
    """Of the objects directly below a folder, or one level deeper."""
    deeper = [
        f"{kind}/{name}/{n}"
        for name in folder.folders(kind)
        for n in folder.names(f"{kind}/{name}")
    ]
    found = [f"{kind}/{name}" for name in folder.names(kind)] + deeper
    assert found, kind
    return found


def _demand_refused(*calls: Callable[[], object]) -> None:
    for call in calls:
        with pytest.raises(PermissionError):
            call()


def test_the_embedder_finishes_a_job_and_can_delete_nothing(
    lake: Lake, dataset: Folder, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(spec) == 0
    assert "up to date" in capsys.readouterr().out
    for kind in ("data", "quarantine", "manifests", "work", "log"):
        for path in _paths(dataset, kind):
            _demand_refused(lambda path=path: dataset.delete(path))
    source, private = Folder(lake.source), Folder(f"s3://{lake.bucket}/private")
    _demand_refused(
        lambda: source.put("b.parquet", b""),
        lambda: source.delete("a.parquet"),
        lambda: private.get("a"),
        lambda: private.put("b", b""),
    )


def test_the_reader_reads_and_can_write_nothing(
    lake: Lake, dataset: Folder, become: Become, capsys: pytest.CaptureFixture[str]
) -> None:
    become("reader")
    for command in ("show", "verify", "quarantine"):
        assert main([command, lake.output]) == 0
    told = capsys.readouterr().out
    assert "version 1 is whole" in told
    assert "null_input" in told
    folder, source = Folder(lake.output), Folder(lake.source)
    assert source.get("a.parquet")
    (entry,) = _paths(folder, "log")
    _demand_refused(
        lambda: folder.put("data/new", b""),
        lambda: folder.create("log/2.json", b""),
        lambda: folder.delete(entry),
        lambda: source.put("b.parquet", b""),
        lambda: Folder(f"s3://{lake.bucket}/private").get("a"),
    )


def test_the_publisher_changes_what_readers_get_and_nothing_else(
    lake: Lake, dataset: Folder, become: Become, capsys: pytest.CaptureFixture[str]
) -> None:
    become("publisher")
    folder = Folder(lake.output)
    assert main(["tag", lake.output, "golden", "1"]) == 0
    assert main(["publish", lake.output, "golden"]) == 0
    assert main(["versions", lake.output]) == 0
    assert "snapshot: 3 rows, 1 quarantined (published, tag golden)" in capsys.readouterr().out
    for kind in ("data", "manifests", "work", "log"):
        for path in _paths(folder, kind):
            _demand_refused(lambda path=path: folder.delete(path))
    _demand_refused(
        lambda: folder.put("data/new", b""),
        lambda: folder.put("manifests/new", b""),
        lambda: Folder(lake.source).get("a.parquet"),
    )


def test_the_collector_deletes_garbage_and_nothing_else(
    lake: Lake,
    dataset: Folder,
    become: Become,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (kept,) = _paths(dataset, "data")
    stray = f"{kept.removesuffix('.arrow')}0.arrow"
    dataset.put(stray, b"of an attempt that did not count")
    dataset.put(stray.replace("data/", "links/"), b"of another")
    dataset.put("inspections/old", b"of a shard that no snapshot was made from")
    dataset.put("runs/20200101T000000000000Z-0.json", b"of a run of old")
    # the store's times are whole seconds, and what is younger than the snapshot is spared
    (entry,) = _paths(dataset, "log")
    time.sleep(1.1)
    dataset.put(entry, dataset.get(entry))
    become("collector")
    folder = Folder(lake.output)
    monkeypatch.setattr("pipeline.garbage.KEPT_RUNS", 1)
    assert main(["gc", lake.output, "--abandoned", "--delete"]) == 0
    assert len(_paths(folder, "runs")) == 2, "what a run said at first, and at last"
    assert "deleted 2 files" in capsys.readouterr().out
    assert "inspections/old" not in _paths(folder, "inspections")
    assert _paths(folder, "data") == [kept]
    assert list_versions(folder) == [1, 2]
    for kind in ("work", "log", "canaries"):
        for path in _paths(folder, kind):
            _demand_refused(lambda path=path: folder.delete(path))
    _demand_refused(
        lambda: folder.put("data/new", b""),
        lambda: folder.create("work/new", b""),
        lambda: Folder(lake.source).get("a.parquet"),
    )
    become("reader")
    assert main(["verify", lake.output]) == 0
    assert "version 1 is whole" in capsys.readouterr().out


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("lake", [pytest.param("rgw", marks=pytest.mark.system)], indirect=True)
def test_no_role_lists_what_lies_beside_its_prefixes(lake: Lake, become: Become, role: str) -> None:
    become(role)
    assert Folder(lake.output).names("log") == []
    for beside in ("private", "embeddings/other", "embeddings/docs-of-others"):
        with pytest.raises(PermissionError):
            Folder(f"s3://{lake.bucket}/{beside}").names("")


def test_the_bucket_forces_the_condition_where_the_command_sends_it(
    lake: Lake, spec: Path, become: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server here knows the condition's keys, so a proxy does as the policy says."""
    (statement,) = read_policy("bucket", lake.bucket)["Statement"]
    # the form that AWS documents for enforcing conditional writes
    assert statement["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }
    assert (statement["Effect"], statement["Action"]) == ("Deny", "s3:PutObject")
    places = [arn.removeprefix("arn:aws:s3:::") for arn in statement["Resource"]]
    become("embedder")
    with proxied(lake.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        forget_stores()
        proxy.rules = [
            Rule(
                method="PUT",
                path=f"^/{place.replace('*', '.*')}",
                without="If-None-Match",
                fault="status",
                status=403,
                code="AccessDenied",
            )
            for place in places
        ]
        assert embed(spec) == 0
        assert [rule.struck for rule in proxy.rules] == [0, 0, 0]
        folder = Folder(lake.output)
        for kind in ("log", "work", "canaries"):
            for path in _paths(folder, kind):
                _demand_refused(lambda path=path: folder.put(path, b"another"))
        folder.put("job.json", b"{}")


def test_the_servers_take_the_bucket_s_policy_and_its_lifecycle(lake: Lake) -> None:
    key, secret = lake.keys["owner"]
    client = boto3.client(
        "s3",
        endpoint_url=lake.endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
    policy = read_policy("bucket", lake.bucket)
    client.put_bucket_policy(Bucket=lake.bucket, Policy=json.dumps(policy))
    assert json.loads(client.get_bucket_policy(Bucket=lake.bucket)["Policy"]) == policy
    rules = read_policy("lifecycle", lake.bucket)
    client.put_bucket_lifecycle_configuration(Bucket=lake.bucket, LifecycleConfiguration=rules)
    assert client.get_bucket_lifecycle_configuration(Bucket=lake.bucket)["Rules"] == rules["Rules"]


def test_the_page_s_commands_put_a_lake_s_places_into_the_policies(tmp_path: Path) -> None:
    page = (POLICIES / "README.md").read_text()
    (commands,) = re.findall(
        r"^\$ (mkdir policies\n)\$ (for name in .*?\n  done\n)", page, re.M | re.S
    )
    (tmp_path / "infra").symlink_to(POLICIES.parent)
    subprocess.run(["bash", "-euc", "".join(commands)], cwd=tmp_path, check=True)
    made = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "policies").iterdir()}
    assert made == {path.stem: read_policy(path.stem, "lake") for path in POLICIES.glob("*.json")}
    assert "BUCKET" not in json.dumps(made)
    assert "PREFIX" not in json.dumps(made)
