"""A store that fails: what may pass is waited for, what does not pass is told at once."""

import uuid

import pytest

from pipeline.errors import OutputError
from pipeline.folder import PROBE, Folder, settle
from pipeline.storage import demand_unchanged, list_objects, read_object
from tests.faults.proxy import Proxy, Rule

pytestmark = pytest.mark.s3

_PASSING = {
    "503": Rule(fault="status"),
    "500": Rule(fault="status", status=500, code="InternalError"),
    "409": Rule(fault="status", status=409, code="ConditionalRequestConflict", method="PUT"),
    "refused connection": Rule(fault="drop_before"),
    "lost reply": Rule(fault="drop_after"),
}


def _rule(name: str, **changes: object) -> Rule:
    return Rule(**vars(_PASSING[name]) | changes)


@pytest.mark.parametrize("name", _PASSING)
@pytest.mark.fault("store.slow_down", "store.network", "store.conflict")
def test_a_fault_that_passes_changes_nothing(proxy: Proxy, bucket: str, name: str) -> None:
    folder = Folder(f"{bucket}/data")
    # more than the client's own tries
    proxy.rules = [_rule(name, times=7)]
    folder.put("a", b"one")
    assert proxy.rules[0].struck == 7
    proxy.rules = [_rule(name, times=7)]
    assert settle(folder, "b", b"two") == b"two"
    proxy.rules = [_rule(name, times=7)]
    assert folder.get("a") == b"one"
    proxy.rules = [_rule(name, times=7)]
    assert folder.sizes("") == {"a": 3, "b": 3}


@pytest.mark.parametrize("name", ["503", "500", "refused connection"])
@pytest.mark.fault("store.slow_down", "store.network")
def test_the_source_is_read_through_faults_that_pass(proxy: Proxy, bucket: str, name: str) -> None:
    Folder(f"{bucket}/data").put("a", b"0123456789")
    (listed,) = list_objects(f"{bucket}/data/a")
    proxy.rules = [_rule(name, times=7)]
    assert read_object(listed.uri, 2, 5) == b"234"
    proxy.rules = [_rule(name, times=7)]
    demand_unchanged(listed)
    assert proxy.rules[0].struck == 7


@pytest.mark.parametrize("fault", ["truncate", "slow"])
@pytest.mark.fault("store.network")
def test_a_body_that_is_cut_or_slow_arrives_whole(proxy: Proxy, bucket: str, fault: str) -> None:
    folder, body = Folder(f"{bucket}/data"), uuid.uuid4().hex.encode() * 64
    folder.put("a", body)
    proxy.rules = [Rule(method="GET", path="/data/a", fault=fault, times=2)]
    assert folder.get("a") == body
    assert proxy.rules[0].struck >= 1


@pytest.mark.parametrize("name", ["lost reply", "503", "409"])
@pytest.mark.fault("store.lost_reply", "store.conflict")
def test_what_is_created_once_has_one_winner_whatever_fails(
    proxy: Proxy, bucket: str, name: str
) -> None:
    folder = Folder(f"{bucket}/data")
    proxy.rules = [_rule(name, method="PUT", times=1)]
    assert settle(folder, "entry", b"ours") == b"ours"
    proxy.rules = [_rule(name, method="PUT", times=1)]
    assert settle(folder, "entry", b"theirs") == b"ours"


@pytest.mark.fault("store.unavailable")
def test_a_fault_that_does_not_pass_is_told_when_the_patience_is_spent(
    proxy: Proxy, bucket: str
) -> None:
    proxy.rules = [_rule("503")]
    with pytest.raises(OSError, match=r"Service Unavailable|SlowDown"):
        Folder(f"{bucket}/data", patience=1).get("a")


@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (400, "ExpiredToken"), (403, "InvalidAccessKeyId")]
)
@pytest.mark.fault("store.forbidden", "store.expired_credentials")
def test_a_right_that_is_missing_is_told_at_once(
    proxy: Proxy, bucket: str, status: int, code: str
) -> None:
    proxy.rules = [Rule(fault="status", status=status, code=code)]
    with pytest.raises(PermissionError, match=code):
        Folder(f"{bucket}/data").put("a", b"")
    assert len(proxy.requests) == 1
    with pytest.raises(OutputError, match=f"output.uri: '{bucket}/data' cannot be written.*{code}"):
        Folder(f"{bucket}/data").demand_create()


@pytest.mark.fault("store.no_condition")
def test_a_store_that_ignores_the_condition_is_refused(proxy: Proxy, bucket: str) -> None:
    proxy.rules = [Rule(method="PUT", fault="strip_condition")]
    with pytest.raises(OutputError, match="this store ignores If-None-Match"):
        Folder(f"{bucket}/data").demand_create()


def test_a_store_that_honours_it_is_probed_with_one_object_however_often(
    proxy: Proxy, bucket: str
) -> None:
    folder = Folder(f"{bucket}/data")
    for _ in range(3):
        folder.demand_create()
    assert folder.names("") == [PROBE]


@pytest.mark.fault("store.wrong_place")
def test_an_endpoint_where_nobody_answers_is_told(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import storage

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage._filesystem.cache_clear()
    with pytest.raises(OutputError, match="cannot be written to"):
        Folder(f"{bucket}/data", patience=1).demand_create()


@pytest.mark.fault("store.wrong_place")
def test_a_bucket_that_is_missing_is_told(proxy: Proxy, bucket: str) -> None:
    with pytest.raises(OutputError, match="cannot be written to"):
        Folder(f"{bucket}-absent/data").demand_create()
