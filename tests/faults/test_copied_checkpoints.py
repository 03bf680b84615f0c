"""A checkpoint in a store that fails now and then: copied as if it did not."""

from pathlib import Path

import pytest

from pipeline import copies
from pipeline.copies import local_copy
from pipeline.folder import Folder
from tests.faults.proxy import Proxy, Rule

_WEATHERS = {
    "503": Rule(method="GET", path="weights", skip=1, fault="status", times=7),
    "resets": Rule(method="GET", path="weights", skip=1, fault="drop_before", times=7),
    "cut bodies": Rule(method="GET", path="weights", skip=1, fault="truncate", times=7),
}


@pytest.mark.s3
@pytest.mark.fault("store.slow_down", "store.network")
@pytest.mark.parametrize("weather", _WEATHERS)
def test_a_checkpoint_is_copied_through_faults_that_pass(
    proxy: Proxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weather: str
) -> None:
    monkeypatch.setattr(copies, "_RANGE", 1 << 16, raising=False)
    content = bytes(range(256)) * 1024
    folder = Folder(f"{bucket}/model")
    folder.put("weights", content)
    folder.put("config.json", b"{}")
    proxy.rules = [Rule(**vars(_WEATHERS[weather]))]
    copy = local_copy(folder.uri, tmp_path / "cache")
    assert (copy / "weights").read_bytes() == content
    assert proxy.rules[0].struck == 7
    # a range is asked for again, never the whole
    assert proxy.sent < 2 * len(content)
