"""What the sections of a spec about stores allow, and what each store's own client is given."""

import re

import pytest
from pydantic import ValidationError

from pipeline.stores import StoreSpec


def _store(uri: str, **keys: object) -> StoreSpec:
    return StoreSpec(uri=uri, **keys)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_KEY", "account key")
    monkeypatch.setenv("STORE_TOKEN", "signature")
    monkeypatch.setenv("STORE_ACCOUNT", '{"type": "service_account"}')


def test_google_s_client_is_given_the_key_as_what_the_json_says() -> None:
    google = _store("gs://lake", key="env:STORE_ACCOUNT", endpoint="http://localhost:1")
    assert google.options() == {
        "token": {"type": "service_account"},
        "endpoint_url": "http://localhost:1",
    }


def test_azure_s_client_is_given_a_key_a_signature_or_nothing() -> None:
    signed = _store("abfs://lake", account="a", token="env:STORE_TOKEN")
    assert signed.options() == {"account_name": "a", "sas_token": "signature"}
    nobody = _store("abfs://lake", account="a", anonymous=True)
    assert nobody.options() == {"account_name": "a", "anon": True}


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"key": "env:STORE_KEY"}, "AccountKey=account key"),
        ({"token": "env:STORE_TOKEN"}, "SharedAccessSignature=signature"),
    ],
)
def test_another_endpoint_of_azure_s_is_told_with_whatever_goes_there(
    named: dict[str, str], told: str
) -> None:
    at = {"endpoint": "http://localhost:1/a", "account": "a"}
    text = f"BlobEndpoint=http://localhost:1/a;AccountName=a;{told}"
    assert _store("abfs://lake", **at, **named).options() == {
        "connection_string": text,
        "account_name": "a",
    }


@pytest.mark.parametrize("endpoint", ["http://", "https:///path", "http://:9000"])
def test_an_endpoint_without_a_host_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="expected http:// or https:// with a host"):
        _store("s3://", endpoint=endpoint)


_ELSEWHERE = {
    "region": ("gs://", "r", "s3://"),
    "path_style": ("abfs://", True, "s3://"),
    "secret": ("gs://", "env:STORE_KEY", "s3://"),
    "project": ("s3://", "p", "gs://"),
    "account": ("gs://", "a", "abfs://"),
    "token": ("gs://", "env:STORE_TOKEN", "s3:// and abfs://"),
}


@pytest.mark.parametrize("name", _ELSEWHERE)
def test_a_key_that_a_store_would_ignore_is_refused(name: str) -> None:
    uri, value, where = _ELSEWHERE[name]
    sentence = f"{name}: means nothing for {uri}, only for {where}"
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        _store(uri, **{name: value})
