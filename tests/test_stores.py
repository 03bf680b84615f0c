"""How stores are reached: the spec says it, with secrets that it names and nobody is told."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.cli import main
from pipeline import credentials, open_dataset, storage
from pipeline.credentials import redact, resolve
from pipeline.errors import SpecError
from pipeline.spec_file import load_spec
from pipeline.storage import locate, use_stores
from pipeline.stores import StoreSpec, has_password
from tests.faults.proxy import Rule, proxied
from tests.jobs import embed, write_parquet, write_spec

_CANARY = "wJalrXUtnFEMI-canary-7MDENG"
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION")


@pytest.fixture(autouse=True)
def forgotten() -> object:
    yield
    use_stores(())
    credentials._known.clear()


def _store(**keys: object) -> StoreSpec:
    return StoreSpec(**({"uri": "s3://"} | keys))  # type: ignore[arg-type]


def _spec_with(path: Path, spec: Path, storage: object) -> Path:
    path.write_text(yaml.safe_dump(yaml.safe_load(spec.read_text()) | {"storage": storage}))
    return path


def test_the_longest_beginning_of_a_url_says_how_it_is_reached() -> None:
    wide = _store(endpoint="http://wide:1")
    narrow = _store(uri="s3://lake/in", endpoint="http://narrow:1", path_style=True)
    use_stores([narrow, wide])
    assert locate("s3://lake/in/a.parquet").filesystem.endpoint_url == "http://narrow:1"
    assert locate("s3://lake/out").filesystem.endpoint_url == "http://wide:1"
    assert locate("/lake/in").protocol == "file"
    use_stores([narrow])
    assert locate("s3://lake/out").filesystem.endpoint_url is None


@pytest.mark.parametrize(
    ("root", "url", "expected"),
    [
        ("s3://", "s3://any/x", True),
        ("s3://b", "s3://b", True),
        ("s3://b", "s3://b/", True),
        ("s3://b", "s3://b/x/*.tar", True),
        ("s3://b/", "s3://b", True),
        ("s3://b/", "s3://b/x", True),
        ("s3://b/in", "s3://b/in/x", True),
        ("s3://b", "s3://b-other", False),
        ("s3://b", "s3://b-other/x", False),
        ("s3://b/in", "s3://b/inner/x", False),
        ("s3://b/in", "s3://b", False),
        ("gs://", "s3://b", False),
    ],
)
@pytest.mark.fault("security.secrets")
def test_credentials_are_used_at_and_below_the_url_they_are_named_for(
    root: str, url: str, expected: bool
) -> None:
    use_stores([_store(uri=root, endpoint="http://theirs:1")])
    reached = getattr(locate(url).filesystem, "endpoint_url", None)
    assert (reached == "http://theirs:1") is expected


def test_what_is_said_reaches_the_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STORE_KEY", "akia")
    (tmp_path / "secret").write_text(f"{_CANARY}\n")
    found = _store(
        endpoint="http://127.0.0.1:9000",
        region="eu-central-1",
        path_style=True,
        key="env:STORE_KEY",
        secret=f"file:{tmp_path / 'secret'}",
        token="env:STORE_KEY",
    ).options()
    assert found == {
        "endpoint_url": "http://127.0.0.1:9000",
        "client_kwargs": {"region_name": "eu-central-1"},
        "config_kwargs": {"s3": {"addressing_style": "path"}},
        "key": "akia",
        "secret": _CANARY,
        "token": "akia",
    }
    assert _store().options() == {}
    assert _store(anonymous=True).options() == {"anon": True}
    google = _store(uri="gs://", project="p", anonymous=True).options()
    assert google == {"project": "p", "token": "anon"}
    azure = _store(uri="abfs://", account="a", key="env:STORE_KEY")
    assert azure.options() == {"account_name": "a", "account_key": "akia"}


_WRONG = {
    "a secret written out": ({"secret": _CANARY}, "storage.0.secret: expected env:NAME or file:"),
    "a list of secrets": ({"secret": [_CANARY]}, "storage.0.secret: expected env:NAME or file:"),
    "a misspelt key": ({"secret_key": _CANARY}, "storage.0.secret_key: unknown key"),
    "a secret as the region": ({"region": [_CANARY]}, "storage.0.region: its value is not valid"),
    "half a pair": ({"key": "env:A"}, "key and secret of an S3 store go together"),
    "credentials in an endpoint": (
        {"endpoint": f"https://u:{_CANARY}@host"},
        "storage.0.endpoint: expected http:// or https:// with a host, and no credentials",
    ),
    "an endpoint that is no URL": ({"endpoint": "minio:9000"}, "storage.0.endpoint: expected http"),
    "another protocol": ({"uri": "ftp://x"}, "storage.0.uri: its value is not valid"),
    "a key of another protocol": (
        {"account": "a"},
        "storage.0.account: means nothing for s3://, only for abfs://",
    ),
    "nobody with a key": (
        {"anonymous": True, "key": "env:A", "secret": "env:B"},
        "anonymous: true, but a key, secret or token is named as well",
    ),
}


@pytest.mark.parametrize("name", _WRONG)
@pytest.mark.fault("security.secrets")
def test_a_mistake_is_told_in_a_sentence_that_shows_no_secret(tmp_path: Path, name: str) -> None:
    keys, sentence = _WRONG[name]
    spec = write_spec(tmp_path, "checkpoint", write_parquet(tmp_path / "docs.parquet"))
    path = _spec_with(tmp_path / "wrong.yaml", spec, [{"uri": "s3://"} | keys])
    with pytest.raises(SpecError, match=re.escape(sentence)) as caught:
        load_spec(path)
    assert _CANARY not in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.fault("security.secrets")
def test_a_password_in_a_url_is_refused_and_not_shown(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "checkpoint", write_parquet(tmp_path / "docs.parquet"))
    for key in ("source.uri", "output.uri", "model.path"):
        with pytest.raises(SpecError, match="there is a password in the URL") as caught:
            load_spec(spec, [f"{key}=https://me:{_CANARY}@host/x"])
        assert _CANARY not in str(caught.value)
    with pytest.raises(SpecError, match=re.escape("storage.0.uri: there is a password")) as caught:
        load_spec(_spec_with(tmp_path / "s.yaml", spec, [{"uri": f"s3://me:{_CANARY}@b"}]))
    assert _CANARY not in str(caught.value)
    # of Azure's own form the part before the @ is the container
    load_spec(spec, ["output.uri=abfs://container@account.dfs.core.windows.net/x"])


@pytest.mark.parametrize(
    "typed",
    [
        ["show", f"s3://KEY:{_CANARY}@b/x"],
        ["show", f"s3://KEY:sl/a+sh{_CANARY}@b/x"],
        ["retry", f"s3://KEY:{_CANARY}@b/x"],
        ["export", "x", "--format", "parquet", f"s3://KEY:{_CANARY}@b/x"],
        ["embed", f"s3://KEY:{_CANARY}@b/x"],
        ["embed", "job.yaml", "--set", f"output.uri=s3://KEY:{_CANARY}@b/x"],
        ["show", "x", f"s3://KEY:{_CANARY}@b/x"],
        ["show", "x", "--version", f"s3://KEY:{_CANARY}@b/x"],
        ["benchmark", f"s3://KEY:{_CANARY}@b/x"],
    ],
)
@pytest.mark.fault("security.secrets")
def test_a_password_that_was_typed_is_refused_and_not_repeated(
    typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed) == 2
    told = capsys.readouterr()
    assert "there is a password in a URL" in told.err
    assert _CANARY not in told.out + told.err


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://k:s@b/x", True),
        ("s3://k:s/l/a@b/x", True),
        ("https://u:p@host:80/x", True),
        ("https://host:8080/a@b", False),
        ("https://[::1]:8080/a@b", False),
        ("s3://b/a:b@c", False),
        ("abfs://container@account.dfs.core.windows.net/a:b@c", False),
        ("/a:b@c", False),
        ("ray://host:10001", False),
    ],
)
def test_a_password_is_told_from_a_port_and_a_key(url: str, expected: bool) -> None:
    assert has_password(url) is expected


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("env:NIGHTJAR_ABSENT", "names a variable that the environment of this process has not"),
        ("file:/nowhere/secret", "cannot be read: No such file or directory"),
        ("env:NIGHTJAR_EMPTY", "is empty"),
    ],
)
def test_a_secret_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, reference: str, sentence: str
) -> None:
    monkeypatch.setenv("NIGHTJAR_EMPTY", " \n")
    with pytest.raises(SpecError, match=f"storage: {reference} {sentence}"):
        resolve(reference)


@given(
    st.lists(
        st.text(min_size=4, alphabet=st.characters(codec="utf-8", exclude_categories=["C", "Z"])),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
@pytest.mark.fault("security.secrets")
def test_no_resolved_secret_is_left_in_a_text(secrets: list[str], data: st.DataObject) -> None:
    credentials._known.clear()
    # what blots a secret out must not be one itself
    secrets = [secret for secret in secrets if "*" not in secret]
    for secret in secrets:
        os.environ["NIGHTJAR_SECRET"] = secret
        resolve("env:NIGHTJAR_SECRET")
    parts = data.draw(st.lists(st.sampled_from([*secrets, " ", "key=", "\n"]), max_size=9))
    found = redact(" ".join(parts))
    assert not any(secret in found for secret in secrets)


@pytest.mark.fault("security.secrets")
def test_a_log_record_of_anybody_is_without_secrets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STORE_SECRET", _CANARY)
    resolve("env:STORE_SECRET")
    try:
        raise ValueError(f"signed with {_CANARY}")
    except ValueError:
        logging.getLogger("botocore.auth").exception("it was %s of %d", _CANARY, 7)
    assert "it was *** of 7" in caplog.text
    assert "signed with ***" in caplog.text
    assert _CANARY not in caplog.text


@pytest.mark.fault("security.secrets")
def test_a_malformed_log_call_fails_nowhere_and_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError("no text")

    monkeypatch.setenv("STORE_SECRET", _CANARY)
    resolve("env:STORE_SECRET")
    logger = logging.getLogger("nightjar.test.malformed")
    monkeypatch.setattr(logger, "propagate", False)
    handler = logging.StreamHandler()
    monkeypatch.setattr(logger, "handlers", [handler])
    logger.warning("%d", "x")
    logger.warning(f"%d of {_CANARY}", _CANARY, [_CANARY])
    logger.warning("%(there)d", {"there": _CANARY})
    logger.warning("%s", Unprintable())
    logger.warning(Unprintable())
    logger.warning("an exception that is none", exc_info=(_CANARY, 1))  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert told.count("--- Logging error ---") == 6
    assert "Message: '%d'\nArguments: ('x',)" in told
    assert "Message: '%d of ***'\nArguments: ('***', \"['***']\")" in told
    assert _CANARY not in told


_PRIVATE = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n9w0BAQEFAASCBKcwggSjAgEA\nx=\n"
_ACCOUNT = {"type": "service_account", "client_email": "me@p.example", "private_key": _PRIVATE}


@pytest.mark.parametrize(
    ("secret", "shown", "left"),
    [
        (json.dumps(_ACCOUNT), f"signed with {_PRIVATE}", "signed with ***"),
        (json.dumps(_ACCOUNT), repr({"private_key": _PRIVATE[28:]}), "{'private_key': '***"),
        (json.dumps(_ACCOUNT), "line MIIEvQIBADANBgkqhkiG9w0B", "line ***"),
        (json.dumps({"a": [{"refresh_token": _CANARY}]}), f"with {_CANARY}", "with ***"),
        # who we are is no secret, and the middle of many messages
        (json.dumps(_ACCOUNT), "me@p.example may not write", "me@p.example may not write"),
        (_PRIVATE, "line 9w0BAQEFAASCBKcwggSjAgEA", "line ***"),
        ("ab/cd+ef gh", "?x=ab%2Fcd%2Bef%20gh&", "?x=***&"),
        ("ab/cd+ef gh", "?x=ab%2Fcd%2Bef+gh&", "?x=***&"),
        ("ab/cd+ef gh", "/ab/cd%2Bef%20gh/", "/***/"),
        ("\udcffab/cd", "\udcffab/cd", "***"),
    ],
)
@pytest.mark.fault("security.secrets")
def test_a_secret_is_known_in_its_parts_and_spellings(
    monkeypatch: pytest.MonkeyPatch, secret: str, shown: str, left: str
) -> None:
    monkeypatch.setenv("STORE_SECRET", secret)
    resolve("env:STORE_SECRET")
    assert redact(shown).startswith(left)
    assert "MIIE" not in redact(shown)


@pytest.mark.s3
@pytest.mark.fault("security.secrets")
def test_a_job_reaches_its_store_by_its_spec_alone_and_no_secret_is_told(
    bucket: str,
    s3_endpoint: str,
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in _AWS:
        monkeypatch.delenv(name)
    storage._filesystem.cache_clear()
    monkeypatch.setenv("STORE_KEY", "testing")
    (tmp_path / "secret").write_text(_CANARY)
    source = write_parquet(tmp_path / "docs.parquet")
    plain = write_spec(tmp_path, tiny_checkpoint, source, {"uri": f"{bucket}/out"})
    store = {
        "uri": bucket,
        "endpoint": s3_endpoint,
        "region": "us-east-1",
        "path_style": True,
        "key": "env:STORE_KEY",
        "secret": f"file:{tmp_path / 'secret'}",
    }
    spec = _spec_with(tmp_path / "stored.yaml", plain, [store])
    assert embed(spec, "--json") == 0
    assert embed(spec) == 0
    for command in ("show", "verify", "quarantine"):
        assert main([command, f"{bucket}/out", "--storage", str(spec)]) == 0
    assert open_dataset(f"{bucket}/out").count() == 4
    told = capsys.readouterr()
    assert f"{bucket}/out --storage {spec}\n" in told.out
    # a store that says the secret back is blotted out as well
    with proxied(s3_endpoint) as proxy:
        proxy.rules = [Rule(fault="status", status=403, code=_CANARY)]
        store["endpoint"] = proxy.endpoint
        assert embed(_spec_with(tmp_path / "wrong.yaml", plain, [store])) == 2
    refused = capsys.readouterr()
    assert "***" in refused.err
    for text in (told.out, told.err, refused.out, refused.err, repr(load_spec(spec))):
        assert _CANARY not in text
    # what was written holds none either
    stored = locate(f"{bucket}/out")
    use_stores(load_spec(spec).storage)
    stored = locate(f"{bucket}/out")
    for path in stored.filesystem.find(stored.path):
        assert _CANARY.encode() not in stored.filesystem.cat_file(path)


def test_a_command_that_fails_unforeseen_shows_no_secret(tmp_path: Path) -> None:
    program = (
        "import os, sys, jobs.show\n"
        "from jobs import cli\n"
        "from jobs.commands import datasets\n"
        "from pipeline.credentials import resolve\n"
        "def run(*_): raise KeyError(resolve('env:STORE_SECRET'))\n"
        "jobs.show.run = run\n"
        "datasets._opened = lambda _: None\n"
        "sys.exit(cli.main(['show', 'x']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"STORE_SECRET": _CANARY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "KeyError: '***'" in done.stderr
    assert _CANARY not in done.stdout + done.stderr
