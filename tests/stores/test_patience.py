"""Which faults of Google's and Azure's clients are waited for, by their class and status."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import requests
from azure.core import exceptions as azure
from gcsfs.retry import HttpError
from google.auth.exceptions import RefreshError, TransportError

from pipeline.patience import may_pass, store_errors

pytestmark = pytest.mark.fault("store.slow_down", "store.network", "store.forbidden")


def _google(status: int) -> Exception:
    return HttpError({"code": status, "message": "no"})


def _azure(status: int) -> Exception:
    return azure.HttpResponseError("no", response=SimpleNamespace(status_code=status, reason="no"))


def _told(error: Exception) -> OSError:
    """As a caller of the store is told it."""
    with pytest.raises(OSError) as caught, store_errors("abfs://lake/a"):
        raise error
    return caught.value


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_store_that_is_busy_is_waited_for(status: int) -> None:
    assert may_pass(_told(_google(status)))
    assert may_pass(_told(_azure(status)))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 412])
def test_a_store_that_refuses_is_not(status: int) -> None:
    assert not may_pass(_told(_google(status)))
    assert not may_pass(_told(_azure(status)))


@pytest.mark.parametrize(
    "error",
    [
        # gcsfs makes one of a 502
        requests.exceptions.ProxyError(),
        requests.exceptions.ReadTimeout(),
        requests.exceptions.ChunkedEncodingError(),
        TransportError("no answer"),
        azure.ServiceRequestError("no connection"),
        azure.ServiceResponseError("no answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_way_that_is_broken_is_waited_for(error: Exception) -> None:
    assert may_pass(_told(error))


def test_credentials_that_are_not_accepted_are_not_waited_for() -> None:
    assert not may_pass(_told(RefreshError("revoked")))
    assert not may_pass(_told(azure.ClientAuthenticationError("who are you")))


@pytest.mark.parametrize(
    ("package", "uri", "extra"),
    [("gcsfs", "gs://lake/a", "gcs"), ("adlfs", "abfs://lake/a", "azure")],
)
def test_a_client_that_is_not_installed_is_named_with_its_extra(
    package: str, uri: str, extra: str
) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from jobs.cli import main\n"
        f"sys.exit(main(['show', {uri!r}]))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"; in Nightjar's folder: pip install -e '.[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
