"""One empty place in each kind of store, and what a job spec says to reach it.

Stores that need nothing but Python are tested by `make test`. Those marked `system` need packages
that `.ci/run` installs; it sets NIGHTJAR_SYSTEM, and then one that is missing is a failure. Any
other store is named by NIGHTJAR_TEST_URI, for example `s3://bucket/prefix`, and reached through the
environment; what the tests write there stays below folders of their own.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline.storage import locate, use_stores
from pipeline.stores import StoreSpec
from tests.installed import demand_installed
from tests.stores import ceph
from tests.stores.ceph import Gateway, gateway
from tests.stores.emulators import ACCOUNT, ACCOUNT_KEY, AZURITE, azure, google

_NAMED = "NIGHTJAR_TEST_URI"
_EMULATORS = "NIGHTJAR_EMULATORS"


@dataclass(frozen=True, kw_only=True)
class Store:
    """A place that is empty."""

    root: str
    """Its URL."""
    reached: tuple[dict[str, Any], ...] = ()
    """The `storage` section of a job spec that reaches it; empty where the environment does."""


@pytest.fixture(
    params=[
        "file",
        pytest.param("moto", marks=pytest.mark.s3),
        pytest.param("rgw", marks=(pytest.mark.s3, pytest.mark.system)),
        "gcs",
        pytest.param("azure", marks=pytest.mark.system),
        "named",
    ]
)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty place in each store, reached by this process as by a job that names it."""
    found: Store = request.getfixturevalue(f"{request.param}_store")
    use_stores([StoreSpec(**keys) for keys in found.reached])
    yield found
    use_stores(())


@pytest.fixture
def root(store: Store) -> str:
    """The URL of such a place."""
    return store.root


@pytest.fixture
def file_store(tmp_path: Path) -> Store:
    """A directory that is not there yet."""
    return Store(root=str(tmp_path / "store"))


@pytest.fixture
def moto_store(bucket: str) -> Store:
    """A folder of the fake S3, which the environment leads to."""
    return Store(root=f"{bucket}/store")


@pytest.fixture
def named_store() -> Store:
    """A folder of the store that the environment names."""
    uri = os.environ.get(_NAMED)
    if uri is None:
        pytest.skip(f"{_NAMED} names no store, such as s3://bucket/prefix")
    return Store(root=f"{uri.rstrip('/')}/{uuid.uuid4().hex}/store")


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Ceph's gateway, started once."""
    demand_installed(ceph.missing(), "radosgw ceph-mon ceph-osd ceph-common")
    with gateway(tmp_path_factory.mktemp("ceph")) as found:
        yield found


@pytest.fixture
def rgw_store(rgw: Gateway, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder of a new bucket of Ceph's."""
    monkeypatch.setenv("RGW_KEY", rgw.key)
    monkeypatch.setenv("RGW_SECRET", rgw.secret)
    name = f"nightjar-{uuid.uuid4().hex[:12]}"
    boto3.client(
        "s3",
        endpoint_url=rgw.endpoint,
        region_name="us-east-1",
        aws_access_key_id=rgw.key,
        aws_secret_access_key=rgw.secret,
    ).create_bucket(Bucket=name)
    reached = {
        "uri": f"s3://{name}",
        "endpoint": rgw.endpoint,
        "region": "us-east-1",
        "path_style": True,
        "key": "env:RGW_KEY",
        "secret": "env:RGW_SECRET",
    }
    return Store(root=f"s3://{name}/store", reached=(reached,))


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Google's store on the loopback, by its URL."""
    with google(tmp_path_factory.mktemp("gcs")) as url:
        yield url


@pytest.fixture
def gcs_store(gcs: str) -> Store:
    """A folder of a new bucket there."""
    name = f"nightjar-{uuid.uuid4().hex[:12]}"
    keys = {"uri": f"gs://{name}", "endpoint": gcs, "project": "p", "anonymous": True}
    _make_bucket(keys, name)
    return Store(root=f"gs://{name}/store", reached=(keys,))


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Azure's store on the loopback, by the URL of its one account."""
    program = shutil.which(AZURITE, path=os.environ.get(_EMULATORS))
    demand_installed([] if program else [AZURITE], f"npm's azurite, its folder in {_EMULATORS}")
    assert program is not None
    with azure(program, tmp_path_factory.mktemp("azure")) as url:
        yield url


@pytest.fixture
def azure_store(azurite: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A folder of a new container there."""
    monkeypatch.setenv("AZURITE_KEY", ACCOUNT_KEY)
    name = f"nightjar-{uuid.uuid4().hex[:12]}"
    keys = {
        "uri": f"abfs://{name}",
        "endpoint": azurite,
        "account": ACCOUNT,
        "key": "env:AZURITE_KEY",
    }
    _make_bucket(keys, name)
    return Store(root=f"abfs://{name}/store", reached=(keys,))


def _make_bucket(keys: dict[str, Any], name: str) -> None:
    use_stores([StoreSpec(**keys)])
    locate(keys["uri"]).filesystem.mkdir(name)
