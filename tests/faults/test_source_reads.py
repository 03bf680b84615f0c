"""A source in a store that fails now and then: planned and read as if it did not."""

from typing import Any

import pytest

from pipeline.errors import SourceError
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
