"""Whole runs whose store fails for good in the middle: told once, nothing committed, nothing lost.

From a chosen moment on every request is answered by the same fault. The same command, with the
store well again, then embeds what was left and nothing else, and the dataset is that of a run that
met no fault.
"""

import io
import json
import re
from email.message import Message
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline import open_dataset, storage
from pipeline.dataset import Dataset
from pipeline.folder import Folder
from pipeline.log import list_versions
from tests.chaos.oracle import demand_equal
from tests.faults.proxy import Proxy, Rule
from tests.jobs import embed, write_spec

pytestmark = pytest.mark.s3

_SHARDS, _ROWS, _UNIT, _DONE = 3, 12, 2, 3
_PATIENCE = 1.0
"""Seconds; one that is not small would make each of these runs take a quarter of an hour."""

_AT_ONCE = 5
"""Requests that a fault which does not pass may cost: what was asked, what is there instead, and
the account of the run."""

_FAULTS = {
    "403": Rule(fault="status", status=403, code="AccessDenied"),
    "expired token": Rule(fault="status", status=400, code="ExpiredToken"),
    "503": Rule(fault="status", status=503, code="SlowDown"),
}
_SHOWN = [
    pytest.param("403", marks=pytest.mark.fault("store.forbidden")),
    pytest.param("expired token", marks=pytest.mark.fault("store.expired_credentials")),
    pytest.param("503", marks=pytest.mark.fault("store.unavailable")),
]
_MOMENTS = {
    "when a unit's file is written and not recorded": (r"PUT .*/data/", _DONE + 1, _DONE),
    "when the source is to be read on": (r"GET .*/in/", _SHARDS + 2, None),
    "when nothing but the commit is left": (r"PUT .*/manifests/", 1, _ROWS // _UNIT),
}
"""A request, how many of them still pass, and how many units are done by then, where that is sure:
of a source that is read each shard is asked for once to plan it and once to embed it."""


class _FromThenOn(Rule):
    """Strikes every request after a number of those that match."""

    def __init__(self, fault: Rule, request: str, passing: int) -> None:
        super().__init__(**vars(fault))
        self._request, self._left = re.compile(request), passing

    def strikes(self, method: str, path: str, headers: Message, random: Random) -> bool:
        if self._left:
            self._left -= bool(self._request.match(f"{method} {path}"))
            return False
        return super().strikes(method, path, headers, random)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE", _PATIENCE)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Dataset:
    """The same rows on a disk, embedded without a fault."""
    root = tmp_path_factory.mktemp("oracle")
    spec = _write_job(str(root), root, tiny_checkpoint)
    assert embed(spec) == 0
    return open_dataset(f"{root}/out")


def _write_job(root: str, directory: Path, checkpoint: Path) -> Path:
    """Shards below a root, and the spec of a job that embeds them there."""
    rows = _ROWS // _SHARDS
    for shard in range(_SHARDS):
        ids = range(shard * rows, (shard + 1) * rows)
        columns = {"doc": pa.array(ids), "body": [f"text number {i}" for i in ids]}
        content = io.BytesIO()
        pq.write_table(pa.table(columns), content)
        Folder(root).put(f"in/{shard}.parquet", content.getvalue())
    source = {
        "uri": f"{root}/in/*.parquet",
        "format": "parquet",
        "id": "doc",
        "text": "body",
        "task": "retrieval.passage",
    }
    output = {"uri": f"{root}/out", "single": {"dim": 32}, "multi": {"dtype": "float32"}}
    path = write_spec(directory, checkpoint, source, output)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"compute": {"unit_rows": _UNIT}}))
    return path


@pytest.mark.parametrize("moment", _MOMENTS)
@pytest.mark.parametrize("name", _SHOWN)
def test_a_store_that_fails_for_good_fails_the_run_and_the_same_command_does_the_rest(
    proxy: Proxy,
    bucket: str,
    oracle: Dataset,
    tmp_path: Path,
    tiny_checkpoint: Path,
    prepared: list[int],
    capsys: pytest.CaptureFixture[str],
    name: str,
    moment: str,
) -> None:
    request, passing, done = _MOMENTS[moment]
    fault, output = _FAULTS[name], Folder(f"{bucket}/out")
    spec = _write_job(bucket, tmp_path, tiny_checkpoint)
    proxy.rules = [_FromThenOn(fault, request, passing)]
    assert embed(spec) == 1
    # told at once, or when the patience is spent
    assert (proxy.rules[0].struck <= _AT_ONCE) == (fault.status < 500)
    _demand_one_sentence(capsys.readouterr().err, fault)
    proxy.rules = []
    assert list_versions(output) == []
    recorded = len(output.names(f"work/{output.folders('work')[0]}"))
    assert recorded > 0 and done in (None, recorded)
    prepared.clear()
    assert embed(spec, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["resumed_rows"]) == (_ROWS, recorded * _UNIT)
    assert sum(prepared) == _ROWS - recorded * _UNIT
    assert list_versions(output) == [1]
    assert main(["verify", output.uri]) == 0
    demand_equal(open_dataset(output.uri), oracle)


def _demand_one_sentence(told: str, fault: Rule) -> None:
    sentences = [line for line in told.splitlines() if line.startswith("nightjar: ")]
    assert len(sentences) == 1, told
    # an answer to HEAD has no body, and so no more than a status
    assert re.search(rf"{fault.code}|\({fault.status}\)", sentences[0]), told
    assert "Traceback" not in told
