"""A source in a store that fails now and then: planned and read as if it did not."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.errors import RunError, SourceError
from pipeline.folder import Folder
from pipeline.spec import JobSpec
from pipeline.stages.plan import Plan, plan_work
from pipeline.stages.source import read_units
from tests.faults.proxy import Proxy, Rule
from tests.shards import groups_of, read_all
from tests.shards.test_pinning import _FORMATS, _planned

pytestmark = pytest.mark.s3

_WEATHERS = {
    "503": Rule(fault="status", times=7),
    "resets": Rule(fault="drop_before", times=7),
    "lost replies": Rule(fault="drop_after", times=7),
    "cut bodies": Rule(method="GET", fault="truncate", times=7),
}


def _read(spec: JobSpec, plan: Plan) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for group in groups_of(plan):
        for _, table in read_units(spec.sources[0], group, plan.id_type, list(plan.kept)):
            rows += table.to_pylist()
    return sorted(rows, key=lambda row: row["row"])


@pytest.mark.fault("store.slow_down", "store.network")
@pytest.mark.parametrize("weather", _WEATHERS)
@pytest.mark.parametrize("kind", _FORMATS)
def test_every_format_is_planned_and_read_through_faults_that_pass(
    proxy: Proxy, bucket: str, kind: str, weather: str
) -> None:
    folder = Folder(f"{bucket}/docs")
    spec, plan = _planned(folder, kind)
    expected = _read(spec, plan)
    proxy.rules = [Rule(**vars(_WEATHERS[weather]))]
    again = plan_work(spec, 602112)
    assert again == plan
    assert _read(spec, again) == expected
    assert proxy.rules[0].struck


@pytest.mark.fault("store.wrong_place")
@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchBucket")])
def test_a_source_that_may_not_be_listed_is_told_at_once(
    proxy: Proxy, bucket: str, status: int, code: str
) -> None:
    proxy.rules = [Rule(fault="status", status=status, code=code)]
    with pytest.raises(SourceError, match=r"cannot list|no object matches"):
        read_all({"uri": f"{bucket}/docs", "format": "images", "task": "text-matching"})
    assert len(proxy.requests) < 5


_DENIED = {"file": "Permission denied", "403": "AccessDenied", "outage": "SlowDown|reduce your"}


@pytest.mark.fault("store.forbidden", "store.unavailable", "file.skipped")
@pytest.mark.parametrize("cause", _DENIED)
@pytest.mark.parametrize("kind", _FORMATS)
def test_a_shard_that_is_not_given_ends_the_run_and_is_not_skipped(
    proxy: Proxy,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    cause: str,
) -> None:
    folder = Folder(str(tmp_path) if cause == "file" else f"{bucket}/docs")
    spec, plan = _planned(folder, kind)
    (source,) = spec.sources
    object.__setattr__(source, "on_bad_file", "skip")
    if cause == "file":
        _deny(monkeypatch, folder)
    else:
        monkeypatch.setattr(storage, "PATIENCE", 0.2)
        status, code = {"403": (403, "AccessDenied"), "outage": (503, "SlowDown")}[cause]
        path = r"/docs/a\."
        proxy.rules = [Rule(method="GET", path=path, fault="status", status=status, code=code)]
    with pytest.raises(RunError, match=rf"a\.\w+ cannot be read: .*({_DENIED[cause]})") as told:
        # what a folder of images holds is read by the run itself
        _read(spec, plan) if kind == "images" else plan_work(spec, 602112)
    assert "\n" not in str(told.value)


def _deny(monkeypatch: pytest.MonkeyPatch, folder: Folder) -> None:
    """As if another user's: whoever tests as root may read everything."""

    def refuse(path: str, *_: object) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(storage, "open", refuse, raising=False)
    monkeypatch.setattr(type(folder.filesystem), "cat_file", lambda self, path, **_: refuse(path))
