"""A bucket of a real store, reached through the proxy."""

from collections.abc import Iterator

import pytest
import s3fs

from pipeline import patience, storage
from tests.faults.proxy import Proxy, proxied


@pytest.fixture
def proxy(bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Every client goes through it; the bucket is there already."""
    with proxied(s3_endpoint) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
        storage._filesystem.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()
        # the waits are not what is tested
        monkeypatch.setattr(patience, "_FIRST_WAIT", 0.01)
        yield found
