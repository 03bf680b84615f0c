"""`nightjar retry` after nights: what was set aside is all that is read, embedded and replaced."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.cli import main
from pipeline.dataset import Dataset, open_dataset
from pipeline.folder import Folder
from pipeline.log import newest_entry, read_entry
from pipeline.manifest import QUARANTINE, read_manifest
from pipeline.model.engine import Engine
from pipeline.model.outputs import Embeddings
from pipeline.model.processor import PreparedItem
from pipeline.nightly.aside import Aside
from pipeline.stages.recipe import Recipe
from pipeline.work import WorkUnit
from tests.jobs import OPEN_GATE, killed_after, png

_KEEP = "nightly.on_gone=keep"
_SCHEMA = pa.schema([(name, pa.string()) for name in ("doc", "body", "page")])

Command = Callable[..., str]


def _write(path: Path, rows: Sequence[tuple[int, str | None, str | None]]) -> None:
    columns = zip(*((f"d{n}", body, page) for n, body, page in rows), strict=True)
    arrays = [pa.array(column, pa.string()) for column in columns]
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.table(arrays, schema=_SCHEMA), temporary, row_group_size=4)
    temporary.rename(path)


def _texts(start: int, stop: int) -> list[tuple[int, str | None, str | None]]:
    return [(n, f"owl {n}", None) for n in range(start, stop)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two shards of eight rows; one asks for a page that is not there, and one for nothing."""
    folder = tmp_path / "source"
    folder.mkdir()
    rows = _texts(0, 8)
    rows[2] = (2, "owl 2", "late.png")
    rows[5] = (5, None, None)
    _write(folder / "a.parquet", rows)
    _write(folder / "b.parquet", _texts(8, 16))
    return folder


@pytest.fixture
def spec(tmp_path: Path, source: Path, tiny_checkpoint: Path) -> Path:
    path = tmp_path / "spec.yaml"
    columns = {"id": "doc", "text": "body", "image": "page", "task": "retrieval.passage"}
    described = {
        "name": "nights",
        "model": {"path": str(tiny_checkpoint)},
        "source": {"uri": f"{source}/*.parquet", "format": "parquet", **columns},
        "output": {"uri": str(tmp_path / "out"), "single": {"dim": 16}, "multi": None},
        "compute": {"unit_rows": 4},
        "limits": {"quarantine_share": 1.0},
        "nightly": {"gate": OPEN_GATE},
    }
    path.write_text(yaml.safe_dump(described))
    return path


@pytest.fixture
def night(spec: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a night; what it says."""
    return lambda *settings, code=0: _said(capsys, code, ["nightly", str(spec)], settings)


@pytest.fixture
def retry(spec: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a retry; what it says."""
    command = ["retry", str(spec.parent / "out")]
    return lambda *settings, code=0, more=(): _said(capsys, code, [*command, *more], settings)


def _said(
    capsys: pytest.CaptureFixture[str], code: int, command: list[str], settings: Sequence[str]
) -> str:
    capsys.readouterr()
    more = [part for setting in settings for part in ("--set", setting)]
    found = main([*command, "--address", "none", *more])
    said = capsys.readouterr()
    assert found == code, said.err
    return said.out + said.err


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch, without_canaries: None) -> list[PreparedItem]:
    """The items that reach the engine."""
    items: list[PreparedItem] = []
    original = Engine.embed

    def counted(self: Engine, given: Sequence[PreparedItem], **settings: object) -> Embeddings:
        items.extend(given)
        return original(self, given, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "embed", counted)
    return items


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items of the source are compared."""
    counts: list[int] = []
    original = Recipe.scan

    def counted(self: Recipe, numbered: Sequence[tuple[int, WorkUnit]]) -> pa.Table:
        table = original(self, numbered)
        counts.append(table.num_rows)
        return table

    monkeypatch.setattr(Recipe, "scan", counted)
    return counts


def _dataset(spec: Path, version: int | None = None) -> Dataset:
    return open_dataset(str(spec.parent / "out"), version)


def _there(dataset: Dataset) -> dict[tuple[str, str], list[float]]:
    rows = dataset.to_table(["id", "modality", "embedding"]).to_pylist()
    found = {(row["id"], row["modality"]): row["embedding"] for row in rows}
    assert len(found) == len(rows), "nothing is there twice"
    return found


def _aside(dataset: Dataset) -> list[tuple[str, str]]:
    rows = dataset.quarantine().to_pylist()
    return sorted((row["id"], row["reason"]) for row in rows)


_NULL = ("d5", "null_input")
_LATE = ("d2", "image_not_found")


def test_a_retry_after_a_night_reads_and_embeds_what_was_set_aside_and_nothing_else(
    night: Command, retry: Command, spec: Path, source: Path, reached: list[PreparedItem],
    scanned: list[int],
) -> None:  # fmt: skip
    night()
    _write(source / "b.parquet", _texts(9, 18))
    night()
    before = _dataset(spec)
    assert _aside(before) == [_LATE, _NULL]
    (source / "late.png").write_bytes(png(2))
    reached.clear()
    scanned.clear()
    told = retry()
    assert "1 item tried again, 1 embedded" in told
    assert "1 still set aside (1 null_input)" in told
    assert len(reached) == 1
    assert reached[0].pixels is not None
    assert sum(scanned) == 1
    after = _dataset(spec)
    assert after.version == before.version + 1
    assert _aside(after) == [_NULL]
    gained = _there(after)
    assert gained.pop(("d2", "image"))
    assert gained == _there(before)
    written = {file.path for file in after.files} - {file.path for file in before.files}
    assert len(written) == 1, "what was there is carried in its files"
    assert main(["verify", str(spec.parent / "out")]) == 0
    assert "up to date" in night()
    assert "nothing was set aside for" in retry()
    assert _dataset(spec).version == after.version


def test_rows_that_a_night_has_kept_stay_through_a_retry(
    night: Command, retry: Command, spec: Path, source: Path
) -> None:
    night(_KEEP)
    _write(source / "b.parquet", _texts(8, 12))
    night(_KEEP)
    before = _there(_dataset(spec))
    assert ("d15", "text") in before
    (source / "late.png").write_bytes(png(2))
    assert "1 item tried again, 1 embedded" in retry()
    after = _there(_dataset(spec))
    assert after.pop(("d2", "image"))
    assert after == before
    assert "up to date" in night(_KEEP)


def test_embed_finds_its_work_done_after_a_retry_although_nights_would_keep_rows(
    retry: Command, spec: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed = ["embed", str(spec), "--address", "none", "--set", _KEEP]
    assert main(embed) == 0
    (source / "late.png").write_bytes(png(2))
    assert "1 item tried again, 1 embedded" in retry()
    assert main(embed) == 0
    assert "up to date" in capsys.readouterr().out
    assert _dataset(spec).version == 2


def test_a_retry_that_gains_nothing_is_no_version_and_can_be_made_again(
    night: Command, retry: Command, spec: Path, source: Path
) -> None:
    night()
    for _ in range(2):
        told = retry()
        assert "1 item tried again, 0 embedded" in told
        assert "2 still set aside" in told
    assert newest_entry(Folder(str(spec.parent / "out"))).version == 1  # type: ignore[union-attr]
    (source / "late.png").write_bytes(png(2))
    assert "1 item tried again, 1 embedded" in retry(), "the unit that was in vain is tried again"
    assert _aside(_dataset(spec)) == [_NULL]


def test_what_was_set_aside_for_another_reason_is_left_where_it_is(
    night: Command, retry: Command, spec: Path, source: Path, reached: list[PreparedItem]
) -> None:
    # two of one unit, whose quarantine is one file
    _write(source / "a.parquet", [(0, "", None), (1, "owl", "late.png"), *_texts(2, 4)])
    night()
    before = _dataset(spec)
    reached.clear()
    assert "nothing was set aside for oom" in retry(more=("--reason", "oom"))
    (source / "late.png").write_bytes(png(2))
    assert "1 item tried again, 1 embedded" in retry(more=("--reason", "image_not_found"))
    after = _dataset(spec)
    assert _aside(after) == [("d0", "empty_input")]
    assert (after.count(), after.count_quarantined()) == (before.count() + 1, 1)
    (left,) = _quarantine(after)
    assert [left.file.path] == [part.file.path for part in _quarantine(before)]
    assert len(left.dead) == 1
    assert main(["verify", str(spec.parent / "out")]) == 0
    _write(source / "b.parquet", _texts(8, 17))
    night()
    assert _aside(_dataset(spec)) == [("d0", "empty_input")], "and nights carry it so"


def test_items_are_found_among_units_of_one_segment_whose_tasks_alternate(
    night: Command, retry: Command, spec: Path, source: Path, reached: list[PreparedItem]
) -> None:
    described = yaml.safe_load(spec.read_text())
    described["source"]["task"] = {"column": "kind"}
    described["compute"]["unit_rows"] = 2
    spec.write_text(yaml.safe_dump(described))
    (source / "b.parquet").unlink()
    columns = {
        "doc": [f"d{n}" for n in range(12)],
        "body": [f"owl {n}" for n in range(12)],
        "page": ["late.png" if n in (3, 4, 11) else None for n in range(12)],
        "kind": ["code.passage" if n % 3 else "text-matching" for n in range(12)],
    }
    pq.write_table(pa.table(columns), source / "a.parquet")
    night()
    before = _there(_dataset(spec))
    (source / "late.png").write_bytes(png(2))
    reached.clear()
    assert "3 items tried again, 3 embedded" in retry()
    assert len(reached) == 2, "one content of each of two tasks"
    after = _there(_dataset(spec))
    assert {after.pop((f"d{n}", "image")) is not None for n in (3, 4, 11)} == {True}
    assert after == before
    assert main(["verify", str(spec.parent / "out")]) == 0


def test_what_was_tried_again_for_one_reason_does_not_come_back_with_another(
    night: Command, retry: Command, spec: Path, source: Path
) -> None:
    (source / "large.png").write_bytes(png(1))
    _write(source / "a.parquet", [(0, "owl", "large.png"), (1, "fox", "late.png"), *_texts(2, 4)])
    night("limits.image_pixels=100")
    (source / "late.png").write_bytes(png(2))
    both = [("d0", "image_too_large"), ("d1", "image_not_found")]
    assert _aside(_dataset(spec)) == both
    assert "2 items tried again, 0 embedded" in retry("limits.image_pixels=99")
    assert "1 item tried again, 0 embedded" in retry(more=("--reason", "image_too_large"))
    more = "limits.image_pixels=100000"
    assert "1 embedded" in retry(more, more=("--reason", "image_not_found"))
    assert _aside(_dataset(spec)) == both[:1]
    told = retry(more=("--reason", "image_too_large"))
    assert "1 item tried again, 1 embedded" in told
    assert "none left" in told
    assert _aside(_dataset(spec)) == []


def _quarantine(dataset: Dataset) -> list[Any]:
    return read_manifest(Folder(dataset.uri), dataset.entry.manifest).parts(QUARANTINE)


def test_a_shard_that_cannot_be_read_keeps_its_rows_through_a_retry(
    night: Command, retry: Command, spec: Path, source: Path
) -> None:
    skip = "source.on_bad_file=skip"
    night(skip)
    (source / "b.parquet").write_bytes((source / "b.parquet").read_bytes()[:-9])
    _write(source / "c.parquet", _texts(20, 22))
    night(skip)
    (source / "late.png").write_bytes(png(2))
    assert "1 item tried again, 1 embedded" in retry()
    assert {f"d{n}" for n in range(8, 16)} < {key for key, _ in _there(_dataset(spec))}


def test_rows_of_one_content_that_were_set_aside_are_embedded_once(
    night: Command, retry: Command, spec: Path, source: Path, reached: list[PreparedItem],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _write(source / "a.parquet", [(0, "same", None), *_texts(1, 4), (4, "same", None)])
    from pipeline.model.processor import Processor

    with monkeypatch.context() as patch:
        patch.setattr(Processor, "text", _fails_of("same", Processor.text))
        night()
    assert _aside(_dataset(spec)) == [("d0", "unexpected_error"), ("d4", "unexpected_error")]
    reached.clear()
    assert "2 items tried again, 2 embedded" in retry()
    assert len(reached) == 1
    there = _there(_dataset(spec))
    assert there["d0", "text"] == there["d4", "text"]
    assert main(["verify", str(spec.parent / "out")]) == 0


def _fails_of(bad: str, original: Callable[..., PreparedItem]) -> Callable[..., PreparedItem]:
    def broken(self: object, text: str, task: object) -> PreparedItem:
        if text == bad:
            raise IndexError("a bug")
        return original(self, text, task)

    return broken


def test_a_candidate_for_what_it_set_aside_is_mended_by_a_retry(
    night: Command, retry: Command, spec: Path, source: Path
) -> None:
    night()
    rows: list[tuple[int, str | None, str | None]] = [(20, "owl 20", "later.png")]
    _write(source / "c.parquet", [*rows, *_texts(21, 24)])
    strict = "limits.quarantine_share=0.1"
    assert "version 2 is a candidate" in night(strict, code=1)
    (source / "later.png").write_bytes(png(3))
    assert "version 2 is a candidate" not in retry()
    after = _dataset(spec)
    assert (after.version, after.count()) == (3, 20)
    assert _aside(after) == [_LATE, _NULL]


def test_what_the_gate_refuses_is_a_candidate_and_the_retry_fails(
    night: Command, retry: Command, spec: Path, source: Path
) -> None:
    night()
    (source / "late.png").write_bytes(png(2))
    told = retry("nightly.gate.growth=0.01", code=1)
    assert "version 2 is a candidate, and readers get version 1:" in told
    assert read_entry(Folder(str(spec.parent / "out")), 2).refused
    assert _dataset(spec).version == 1
    retry("nightly.gate.growth=null")
    assert (_dataset(spec).version, _aside(_dataset(spec))) == (3, [_NULL])


def test_a_retry_that_was_cut_off_is_gone_on_with(
    night: Command, retry: Command, spec: Path, source: Path, reached: list[PreparedItem]
) -> None:
    rows = _texts(0, 8)
    rows[1], rows[6] = (1, None, "late.png"), (6, None, "later.png")
    _write(source / "a.parquet", rows)
    night()
    for number, name in enumerate(("late.png", "later.png")):
        (source / name).write_bytes(png(number))
    killed_after(1, "retry", str(spec.parent / "out"), "--address", "none")
    reached.clear()
    retry()
    assert len(reached) == 1
    assert _aside(_dataset(spec)) == []


def test_a_row_that_was_kept_and_is_lost_cannot_be_embedded_again(
    night: Command, retry: Command, spec: Path, source: Path
) -> None:
    night(_KEEP)
    _write(source / "b.parquet", _texts(8, 12))
    night(_KEEP)
    manifest = read_manifest(Folder(str(spec.parent / "out")), _dataset(spec).entry.manifest)
    kept = next(part for part in manifest.parts("data") if not part.shard)
    (spec.parent / "out" / kept.file.path).unlink()
    assert f"{kept.file.path}, a file of version 2, is gone; put it back" in retry(code=2)
    assert _dataset(spec).version == 2


def test_another_source_than_that_of_the_last_night_is_not_embedded_by_a_retry(
    night: Command, retry: Command, source: Path
) -> None:
    night(_KEEP)
    _write(source / "b.parquet", _texts(8, 17))
    told = retry(code=2)
    assert "version 1 is not of the job that" in told
    assert "run `nightjar nightly`" in told


def test_a_row_that_was_to_be_tried_again_and_is_not_found_is_refused(
    night: Command, retry: Command, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night()
    original = Aside.of

    def blind(*given: Any) -> Aside:
        found = original(*given)
        return Aside(units={}, rows=found.rows, left=found.left)

    monkeypatch.setattr(Aside, "of", blind)
    assert "1 of 1 rows that were set aside are not in shards" in retry(code=1)
    assert json.loads((spec.parent / "out/job.json").read_text())["name"] == "nights"
    assert _dataset(spec).version == 1
