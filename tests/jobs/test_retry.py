"""`nightjar retry`: only what was set aside is embedded, and the rest is kept as it was."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.cli import main
from pipeline import open_dataset
from pipeline.dataset import Dataset
from pipeline.log import JOB
from pipeline.model.engine import Engine
from pipeline.model.outputs import Embeddings
from pipeline.model.processor import PreparedItem
from pipeline.stores import StoreSpec
from pipeline.tasks import Task
from tests.jobs import TEXTS, embed, embed_killed_after, png, write_parquet, write_spec

_ABSENT = "pages/late.png"


@pytest.fixture
def spec(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """Four texts, two of them with a page, of which one is not there yet; and a null."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/a.png").write_bytes(png(1))
    lines = [
        {"doc": n, "body": text, "page": page}
        for n, (text, page) in enumerate(
            zip([*TEXTS, None], ["pages/a.png", _ABSENT, None, None, None], strict=True)
        )
    ]
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    source = {
        "uri": str(path),
        "format": "jsonl",
        "id": "doc",
        "text": "body",
        "image": "page",
        "task": "retrieval.passage",
    }
    return write_spec(tmp_path, tiny_checkpoint, source)


def _retry(tmp_path: Path, *more: str) -> int:
    return main(["retry", str(tmp_path / "out"), "--address", "none", *more])


def _sorted(dataset: Dataset) -> pa.Table:
    return dataset.to_table().sort_by([("id", "ascending"), ("modality", "ascending")])


def _there(dataset: Dataset) -> list[tuple[int, str]]:
    table = dataset.to_table(["id", "modality"]).sort_by([("id", "ascending")])
    return sorted(zip(table["id"].to_pylist(), table["modality"].to_pylist(), strict=True))


def _aside(dataset: Dataset) -> list[tuple[int, str]]:
    table = dataset.quarantine()
    return sorted(zip(table["id"].to_pylist(), table["reason"].to_pylist(), strict=True))


@pytest.mark.fault("compute.may_pass")
@pytest.mark.usefixtures("without_canaries")
def test_an_image_that_came_late_is_embedded_and_nothing_else_is(
    tmp_path: Path,
    spec: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert embed(spec) == 0
    before = open_dataset(str(tmp_path / "out"))
    assert _aside(before) == [(1, "image_not_found"), (4, "null_input")]
    (tmp_path / _ABSENT).write_bytes(png(2))
    embedded: list[PreparedItem] = []
    original = Engine.embed

    def counted(self: Engine, items: Sequence[PreparedItem], **settings: object) -> Embeddings:
        embedded.extend(items)
        return original(self, items, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "embed", counted)
    monkeypatch.chdir("/")
    capsys.readouterr()
    assert _retry(tmp_path) == 0
    told = capsys.readouterr().out
    assert "1 item tried again, 1 embedded" in told
    assert "1 still set aside (1 null_input)" in told
    assert len(embedded) == 1
    assert embedded[0].pixels is not None
    after = open_dataset(str(tmp_path / "out"))
    assert after.version == 2
    assert _there(after) == sorted([*_there(before), (1, "image")])
    assert _aside(after) == [(4, "null_input")]
    # what was there is there bit by bit
    old, whole = _sorted(before), _sorted(after)
    keys = zip(whole["id"].to_pylist(), whole["modality"].to_pylist(), strict=True)
    assert whole.filter(pa.array([key != (1, "image") for key in keys])).equals(old)
    # the same as if it had been there from the start
    assert embed(spec, "--set", f"output.uri={tmp_path / 'fresh'}") == 0
    fresh = _sorted(open_dataset(str(tmp_path / "fresh")))
    assert whole.drop_columns(["embedding", "multivector"]).equals(
        fresh.drop_columns(["embedding", "multivector"])
    )
    vectors = [np.stack(t["embedding"].to_numpy()) for t in (whole, fresh)]
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-5
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_a_retry_that_gains_nothing_commits_nothing_new_and_embed_is_up_to_date_afterwards(
    tmp_path: Path, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(spec) == 0
    assert _retry(tmp_path) == 0
    told = capsys.readouterr().out
    assert "1 item tried again, 0 embedded" in told
    assert "2 still set aside" in told
    dataset = open_dataset(str(tmp_path / "out"))
    assert dataset.version == 1
    assert _aside(dataset) == [(1, "image_not_found"), (4, "null_input")]
    assert embed(spec) == 0
    assert "up to date" in capsys.readouterr().out
    assert _retry(tmp_path, "--reason", "oom") == 0
    told = capsys.readouterr().out
    assert "nothing was set aside for oom; what was, for image_not_found, null_input, is" in told


def test_a_row_that_failed_as_a_whole_is_tried_with_all_it_has(
    tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / _ABSENT).write_bytes(png(2))
    from pipeline.model.processor import Processor

    original = Processor.text

    def broken(self: Processor, text: str, task: Task) -> PreparedItem:
        if text == TEXTS[0]:
            raise IndexError("a bug")
        return original(self, text, task)

    with monkeypatch.context() as patch:
        patch.setattr(Processor, "text", broken)
        assert embed(spec) == 0
    before = open_dataset(str(tmp_path / "out"))
    assert (0, "unexpected_error") in _aside(before)
    assert _retry(tmp_path) == 0
    after = open_dataset(str(tmp_path / "out"))
    assert _there(after) == sorted([*_there(before), (0, "image"), (0, "text")])
    assert _aside(after) == [(4, "null_input")]


@pytest.mark.fault("compute.may_pass")
def test_a_refused_run_can_be_mended_and_tried_again(
    tmp_path: Path, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = ("--set", "limits.quarantine_share=0.2")
    assert embed(spec, *strict) == 1
    assert not (tmp_path / "out/log").exists()
    (tmp_path / _ABSENT).write_bytes(png(2))
    assert _retry(tmp_path) == 0
    after = open_dataset(str(tmp_path / "out"))
    assert after.version == 1
    assert _aside(after) == [(4, "null_input")]


def test_what_cannot_be_tried_again_is_told(
    tmp_path: Path, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _retry(tmp_path) == 2
    assert f"holds no {JOB}: no run has begun there" in capsys.readouterr().err
    assert embed(spec) == 0
    assert _retry(tmp_path, "--reason", "bad_luck") == 2
    assert "--reason: 'bad_luck' is not one of null_input" in capsys.readouterr().err
    assert _retry(tmp_path, "--set", "limits.stal=3") == 2
    assert "limits.stal: unknown key" in capsys.readouterr().err
    (tmp_path / "out" / JOB).write_text("{")
    assert _retry(tmp_path) == 2
    assert f"{JOB} is damaged" in capsys.readouterr().err


def test_a_file_that_was_damaged_since_is_carried_as_what_was_committed_and_so_found(
    tmp_path: Path, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(spec) == 0
    (tmp_path / _ABSENT).write_bytes(png(2))
    (data,) = (tmp_path / "out/data").rglob("*.arrow")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert _retry(tmp_path) == 0
    assert open_dataset(str(tmp_path / "out")).version == 2
    assert main(["verify", str(tmp_path / "out")]) == 1
    assert f"{data.name} is damaged: its sha256 has changed" in capsys.readouterr().err


def test_what_was_set_aside_is_not_read_from_a_file_that_was_damaged_since(
    tmp_path: Path, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(spec) == 0
    (tmp_path / _ABSENT).write_bytes(png(2))
    (aside,) = (tmp_path / "out/quarantine").rglob("*.arrow")
    content = bytearray(aside.read_bytes())
    content[len(content) // 2] ^= 1
    aside.write_bytes(content)
    assert _retry(tmp_path) == 2
    assert "is damaged: its sha256 has changed" in capsys.readouterr().err
    assert open_dataset(str(tmp_path / "out")).version == 1


@pytest.mark.fault("compute.two_configs")
def test_another_job_that_was_begun_there_is_not_embedded_by_a_retry(
    tmp_path: Path, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(spec) == 0
    before = open_dataset(str(tmp_path / "out"))
    other = json.loads(spec.read_text())
    other["source"] = write_parquet(tmp_path / "b.parquet") | {"keep": []}
    (tmp_path / "other").mkdir()
    other_spec = tmp_path / "other/job.yaml"
    other_spec.write_text(json.dumps(other))
    embed_killed_after(0, other_spec)
    assert "b.parquet" in (tmp_path / "out" / JOB).read_text()
    (tmp_path / _ABSENT).write_bytes(png(2))
    capsys.readouterr()
    assert _retry(tmp_path) == 2
    told = capsys.readouterr().err
    assert f"version 1 is not of the job that {JOB} describes" in told
    assert "run `nightjar nightly` with the spec that is meant, then retry" in told
    assert open_dataset(str(tmp_path / "out")).version == 1
    # the way out
    assert embed(spec) == 0
    assert "up to date" in capsys.readouterr().out
    assert _retry(tmp_path) == 0
    after = open_dataset(str(tmp_path / "out"))
    assert _there(after) == sorted([*_there(before), (1, "image")])


@pytest.mark.parametrize("change", ["source", "override"])
def test_other_work_than_that_of_the_snapshot_is_not_embedded_by_a_retry(
    tmp_path: Path, spec: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    assert embed(spec) == 0
    if change == "source":
        docs = tmp_path / "docs.jsonl"
        docs.write_text(docs.read_text().replace("owl", "nightjar"))
    more = ("--set", "source.image=null") if change == "override" else ()
    assert _retry(tmp_path, *more) == 2
    assert "version 1 is not of the job" in capsys.readouterr().err
    assert open_dataset(str(tmp_path / "out")).version == 1


def test_a_run_that_was_cut_off_before_any_snapshot_is_gone_on_with(
    tmp_path: Path, spec: Path
) -> None:
    embed_killed_after(0, spec)
    assert _retry(tmp_path) == 0
    assert open_dataset(str(tmp_path / "out")).version == 1


_CANARY = "wJalrXUtnFEMI-canary"


@pytest.mark.fault("security.secrets")
def test_a_dataset_cannot_have_a_file_of_whoever_retries_it_sent_anywhere(
    tmp_path: Path, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert embed(spec) == 0
    job = tmp_path / "out" / JOB
    (tmp_path / "mine").write_text(_CANARY)
    named = f"file:{tmp_path / 'mine'}"
    store = {"uri": "s3://", "endpoint": "http://127.0.0.1:9", "key": named, "secret": named}
    job.write_text(json.dumps(json.loads(job.read_text()) | {"storage": [store]}))
    reached: list[object] = []
    monkeypatch.setattr("jobs.embed.use_stores", reached.append)
    assert _retry(tmp_path) == 0
    assert reached == [[]]
    # nor is it kept
    assert "storage" not in json.loads(job.read_text())


@pytest.mark.fault("security.secrets")
def test_how_stores_are_reached_is_not_kept_and_comes_with_the_retry(
    tmp_path: Path,
    spec: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stores = [{"uri": "s3://lake", "endpoint": "http://theirs:1"}]
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"storage": stores}))
    assert embed(spec) == 0
    assert "storage" not in json.loads((tmp_path / "out" / JOB).read_text())
    reached: list[object] = []
    workers: list[object] = []
    monkeypatch.setattr("jobs.embed.use_stores", reached.append)
    monkeypatch.setattr("pipeline.stages.recipe.use_stores", workers.append)
    (tmp_path / _ABSENT).write_bytes(png(2))
    assert _retry(tmp_path, "--storage", str(spec)) == 0
    mine = [StoreSpec(uri="s3://lake", endpoint="http://theirs:1")]
    assert reached == [mine]
    assert workers
    assert all(stores == tuple(mine) for stores in workers)
    capsys.readouterr()
    assert _retry(tmp_path, "--set", "storage=[]") == 2
    assert "--set storage: give a spec that says so with --storage SPEC" in capsys.readouterr().err
