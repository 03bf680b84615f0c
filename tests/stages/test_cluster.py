"""Reaching a cluster. What a real one does is in tests/end_to_end; here is the fault that needs a
head so busy that no test can count on it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import ray

from pipeline.errors import RunError
from pipeline.stages import cluster

# as Ray Client's server of 2.60 words it when a process it started was not ready in time
_TOO_SLOW = (
    "Initialization failure from server:\nTraceback (most recent call last):\n"
    '  File "proxier.py", line 780, in Datapath\n'
    "RuntimeError: Proxy failed to Connect to backend! Check the logs.\n"
)


@pytest.fixture
def ray_that_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Exception]], list[str]]:
    """A Ray that fails so often, and then is there; returns the addresses it was asked for."""

    def failing(errors: list[Exception]) -> list[str]:
        asked: list[str] = []

        def init(address: str, **_: Any) -> None:
            asked.append(address)
            if errors:
                raise errors.pop(0)

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.setattr(cluster, "capacity", lambda: None)
        monkeypatch.setattr(cluster, "_knock", lambda address: None)
        return asked

    return failing


def test_a_head_that_is_too_busy_for_a_client_is_asked_again(
    ray_that_fails: Callable[[list[Exception]], list[str]],
) -> None:
    asked = ray_that_fails([ConnectionAbortedError(_TOO_SLOW)] * 2)
    with cluster.connected("ray://head:10001"):
        assert asked == ["ray://head:10001"] * 3


def test_a_head_that_stays_too_busy_is_told_with_the_end_of_its_traceback(
    ray_that_fails: Callable[[list[Exception]], list[str]],
) -> None:
    asked = ray_that_fails([ConnectionAbortedError(_TOO_SLOW)] * 9)
    told = pytest.raises(RunError, match=r"failure from server: RuntimeError: Proxy failed")
    with told, cluster.connected("ray://head:10001"):
        pass
    assert len(asked) == 3


def test_any_other_failure_is_told_at_once(
    ray_that_fails: Callable[[list[Exception]], list[str]],
) -> None:
    asked = ray_that_fails([ConnectionError("Could not find any running Ray instance.\nMore.")])
    told = pytest.raises(RunError, match=r"Could not find any running Ray instance\.$")
    with told, cluster.connected("host:6379"):
        pass
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("raised", "is_let_go_of"),
    [(None, True), (RunError("it fails"), True), (KeyboardInterrupt(), False)],
)
def test_ray_is_let_go_of_at_the_end_unless_its_work_was_interrupted(
    raised: BaseException | None, is_let_go_of: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a run that was interrupted still says so, and writes its account, which comes after this
    said: list[str] = []
    monkeypatch.setattr(cluster, "_initialise", lambda _: said.append("connected"))
    monkeypatch.setattr(cluster, "capacity", lambda: None)
    monkeypatch.setattr(ray, "shutdown", lambda: said.append("let go"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with suppress(RunError, KeyboardInterrupt), cluster.connected("local"):
        if raised is not None:
            raise raised
    assert said == ["connected"] + ["let go"] * is_let_go_of
