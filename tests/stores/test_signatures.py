"""A store that checks who we are, which the fake S3 does not: a wrong secret is told at once."""

import json
from pathlib import Path

import pytest

from pipeline.errors import OutputError, SourceError
from pipeline.folder import Folder
from pipeline.storage import list_objects, read_object, use_stores
from pipeline.stores import StoreSpec
from tests.jobs import embed, write_parquet, write_spec
from tests.stores.conftest import Store

pytestmark = [pytest.mark.s3, pytest.mark.system, pytest.mark.fault("store.forbidden")]

_WRONG = "not-the-secret-at-all"


@pytest.fixture
def refused(rgw_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A place where an object is, reached with a wrong secret from now on."""
    use_stores([StoreSpec(**keys) for keys in rgw_store.reached])
    Folder(rgw_store.root).put("a", b"one")
    monkeypatch.setenv("WRONG_SECRET", _WRONG)
    reached = tuple(keys | {"secret": "env:WRONG_SECRET"} for keys in rgw_store.reached)
    return Store(root=rgw_store.root, reached=reached)


def test_every_call_says_so_and_none_is_tried_again(refused: Store) -> None:
    use_stores([StoreSpec(**keys) for keys in refused.reached])
    folder = Folder(refused.root)
    for call in (
        lambda: folder.get("a"),
        lambda: folder.put("a", b"two"),
        lambda: folder.create("b", b"two"),
        lambda: folder.delete("a"),
        lambda: folder.names(""),
        lambda: read_object(f"{refused.root}/a"),
    ):
        with pytest.raises(PermissionError):
            call()
    with pytest.raises(SourceError, match=f"cannot list '{refused.root}': "):
        list_objects(refused.root)
    with pytest.raises(OutputError, match=f"output.uri: '{refused.root}' cannot be written to: "):
        folder.demand_create()


def test_the_command_tells_it_in_a_sentence_without_the_secret(
    refused: Store, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_parquet(tmp_path / "docs.parquet")
    spec = write_spec(tmp_path, tiny_checkpoint, source, {"uri": f"{refused.root}/out"})
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"storage": refused.reached}))
    assert embed(spec) == 2
    told = capsys.readouterr().err
    assert f"output.uri: '{refused.root}/out' cannot be written to" in told
    assert "SignatureDoesNotMatch" in told
    assert "Traceback" not in told
    assert _WRONG not in told
