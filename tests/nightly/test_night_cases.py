"""Single nights, each with one thing in it."""

import dataclasses
import json
import re
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
from pipeline.manifest import Shard, read_manifest
from pipeline.model.processor import PreparedItem
from pipeline.nightly import night as nights
from pipeline.runs import RUNS
from pipeline.stages.recipe import Recipe
from pipeline.tasks import Task
from pipeline.work import Link, WorkUnit
from tests.jobs import OPEN_GATE, killed_after, png

Night = Callable[..., dict[str, Any]]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    temporary = path.with_suffix(".tmp")
    schema = pa.schema(
        [("doc", pa.int64()), ("body", pa.string()), ("page", pa.binary()), ("title", pa.string())]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), temporary, row_group_size=4)
    temporary.rename(path)


def _rows(start: int, stop: int, **more: Any) -> list[dict[str, Any]]:
    return [{"doc": n, "body": f"owl {n}", "page": None, "title": f"t{n}"} | more
            for n in range(start, stop)]  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two shards of eight rows."""
    folder = tmp_path / "source"
    folder.mkdir()
    _write(folder / "a.parquet", _rows(0, 8))
    _write(folder / "b.parquet", _rows(8, 16))
    return folder


@pytest.fixture
def spec(tmp_path: Path, source: Path, tiny_checkpoint: Path) -> Path:
    path = tmp_path / "spec.yaml"
    described = {
        "name": "nights",
        "model": {"path": str(tiny_checkpoint)},
        "source": {
            "uri": str(source),
            "format": "parquet",
            "id": "doc",
            "text": "body",
            "image": "page",
            "task": "retrieval.passage",
            "keep": ["title"],
        },
        "output": {"uri": str(tmp_path / "out"), "single": {"dim": 16}, "multi": {}},
        "compute": {"unit_rows": 4},
        "limits": {"quarantine_share": 1.0},
        "nightly": {"gate": OPEN_GATE},
    }
    path.write_text(yaml.safe_dump(described))
    return path


@pytest.fixture
def night(spec: Path, capsys: pytest.CaptureFixture[str]) -> Night:
    """Runs a night and returns its account."""

    def run(*settings: str) -> dict[str, Any]:
        capsys.readouterr()
        more = [part for setting in settings for part in ("--set", setting)]
        code = main(["nightly", str(spec), "--address", "none", "--json", *more])
        said = capsys.readouterr()
        assert code == 0, said.err
        found: dict[str, Any] = json.loads(said.out)
        return found

    return run


def _dataset(spec: Path, version: int | None = None) -> Dataset:
    return open_dataset(str(spec.parent / "out"), version)


def _files(spec: Path) -> set[str]:
    root = spec.parent / "out"
    return {str(p.relative_to(root)) for k in ("data", "links", "quarantine")
            for p in root.glob(f"{k}/*/*")}  # fmt: skip


def _found(account: dict[str, Any]) -> tuple[int, ...]:
    names = ("carried", "new", "changed", "updated", "gone")
    return tuple(account["found"][name] for name in names)


def _vector_of(dataset: Dataset, doc: int, modality: str = "text") -> list[float]:
    rows = dataset.to_table(["id", "modality", "embedding"]).to_pylist()
    (found,) = (r["embedding"] for r in rows if (r["id"], r["modality"]) == (doc, modality))
    return list(found)


def test_a_night_without_a_change_reads_no_shard_and_writes_no_file(
    night: Night, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night()
    before = _written(spec)
    monkeypatch.setattr(Recipe, "scan", None)
    monkeypatch.setattr(Recipe, "embed", None)
    account = night()
    assert (account["up_to_date"], account["version"], account["found"]) == (True, 1, None)
    after = _written(spec)
    job = spec.parent / "out/job.json"
    assert before | {job: after[job]} == after


def _written(spec: Path) -> dict[Path, int]:
    """When each file of the dataset was written, but for the accounts of runs."""
    files = (path for path in (spec.parent / "out").rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files if path.parent.name != RUNS}


def test_only_shards_that_have_changed_are_opened(
    night: Night, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night()
    _write(source / "b.parquet", _rows(8, 15))
    opened: list[str] = []
    scan = Recipe.scan

    def noted(recipe: Recipe, numbered: Any) -> pa.Table:
        opened.extend(unit.segment.shard.uri for _, unit in numbered)
        return scan(recipe, numbered)

    monkeypatch.setattr(Recipe, "scan", noted)
    assert _found(night()) == (15, 0, 0, 0, 1)
    assert {Path(uri).name for uri in opened} == {"b.parquet"}


def test_a_shard_that_was_rewritten_as_it_was_writes_no_file(
    night: Night, spec: Path, source: Path
) -> None:
    night()
    files = _files(spec)
    _write(source / "a.parquet", _rows(0, 8)[::-1])
    account = night()
    assert _found(account) == (16, 0, 0, 0, 0)
    assert account["version"] == 2, "the new etag is remembered"
    assert _files(spec) == files
    assert night()["up_to_date"]


def test_a_new_title_is_no_reason_to_embed(night: Night, spec: Path, source: Path) -> None:
    night()
    vector = _vector_of(_dataset(spec), 3)
    rows = _rows(0, 8)
    rows[3]["title"] = "another"
    _write(source / "a.parquet", rows)
    account = night()
    assert _found(account) == (15, 0, 0, 1, 0)
    assert (account["tokens"], account["embedded"]) == (0, {})
    assert (account["linked"], account["pools"]) == ({"text": 1}, {})
    dataset = _dataset(spec)
    titles = {r["id"]: r["title"] for r in dataset.to_table(["id", "title"]).to_pylist()}
    assert titles == {n: f"t{n}" for n in range(16)} | {3: "another"}
    assert _vector_of(dataset, 3) == vector


def test_a_night_says_how_many_rows_got_vectors_that_were_there(
    night: Night, spec: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night()
    for rows, told in (
        (_rows(0, 8, title="another"), "0 rows embedded, 0 tokens in %; 8 rows got vectors that "),
        (_rows(0, 5, title="another"), "0 rows embedded, 0 tokens in %\n"),
        (
            [*_rows(0, 5, title="another"), *_rows(20, 21, body="owl 9"), *_rows(21, 22)],
            "1 rows embedded (1 text), 10 tokens in %; 1 row got vectors that ",
        ),
    ):
        _write(source / "a.parquet", rows)
        capsys.readouterr()
        assert main(["nightly", str(spec), "--address", "none"]) == 0
        said = re.sub(r"[\d.]+ s\b", "%", capsys.readouterr().out)
        assert told in said


def test_of_a_row_with_a_text_and_an_image_only_what_has_changed_is_embedded(
    night: Night, spec: Path, source: Path
) -> None:
    rows = [*_rows(0, 4), {"doc": 4, "body": "a page", "page": png(1), "title": "p"}]
    _write(source / "a.parquet", rows)
    assert night()["embedded"] == {"text": 13, "image": 1}
    image = _vector_of(_dataset(spec), 4, "image")
    rows[4]["body"] = "another text"
    _write(source / "a.parquet", rows)
    account = night()
    assert (account["embedded"], _found(account)) == ({"text": 1}, (13, 0, 1, 0, 0))
    rows[4]["page"] = png(2)
    _write(source / "a.parquet", rows)
    account = night()
    assert (account["embedded"], _found(account)) == ({"image": 1}, (13, 0, 1, 0, 0))
    assert _vector_of(_dataset(spec), 4, "image") != image


def test_several_rows_of_one_content_are_embedded_once(night: Night, spec: Path) -> None:
    source = spec.parent / "source"
    _write(source / "a.parquet", _rows(0, 8, body="the same"))
    account = night()
    assert account["embedded"] == {"text": 9}
    assert (account["linked"], account["pools"]) == ({"text": 7}, {"retrieval": 9})
    dataset = _dataset(spec)
    assert dataset.count() == 16
    assert len({tuple(_vector_of(dataset, doc)) for doc in range(8)}) == 1


def test_rows_that_are_gone_are_kept_when_the_spec_says_so(
    night: Night, spec: Path, source: Path
) -> None:
    night("nightly.on_gone=keep")
    (source / "a.parquet").unlink()
    rows = _rows(8, 16)
    rows[0]["body"] = "changed"
    _write(source / "b.parquet", [*rows[:7], *_rows(2, 3, title="moved")])
    account = night("nightly.on_gone=keep")
    assert account["embedded"] == {"text": 1}
    held = {r["id"]: r["title"] for r in _dataset(spec).to_table(["id", "title"]).to_pylist()}
    assert held == {n: f"t{n}" for n in range(16)} | {2: "moved"}
    assert _dataset(spec).count() == 16, "what is there again is not kept twice"
    assert night("nightly.on_gone=keep")["up_to_date"]


def test_rows_that_are_set_aside_stay_so_while_their_shard_does(
    night: Night, spec: Path, source: Path
) -> None:
    rows = _rows(0, 8)
    # two of one content, so that one would be linked to the other
    rows[1]["body"] = rows[2]["body"] = ""
    rows[5]["body"] = None
    _write(source / "a.parquet", rows)
    account = night()
    assert account["quarantined"] == {"empty_input": 2, "null_input": 1}
    _write(source / "b.parquet", _rows(8, 17))
    night()
    assert _aside(spec) == [1, 2, 5]
    rows[1]["body"] = "mended"
    _write(source / "a.parquet", rows)
    assert night()["embedded"] == {"text": 1}
    assert _aside(spec) == [2, 5]
    assert sorted(_dataset(spec).to_table(["id"])["id"].to_pylist()) == [
        n for n in range(17) if n not in (2, 5)
    ]
    assert main(["verify", str(spec.parent / "out")]) == 0


def _aside(spec: Path) -> list[int]:
    return sorted(_dataset(spec).quarantine()["id"].to_pylist())


def test_work_that_was_cut_off_counts_although_its_shard_has_changed_since(
    night: Night, spec: Path, source: Path, tmp_path: Path
) -> None:
    night()
    _write(source / "a.parquet", [*_rows(0, 8), *_rows(20, 28)])
    killed_after(1, "nightly", str(spec), "--address", "none")
    # the unit that is done is of a shard that is no more
    _write(source / "a.parquet", [*_rows(20, 28), *_rows(30, 31)])
    account = night()
    assert account["embedded"] == {"text": 5}, "4 of the 9 rows that are new had been embedded"
    assert _dataset(spec).count() == 17
    assert main(["verify", str(spec.parent / "out")]) == 0


def test_another_model_makes_a_new_generation_beside_the_old_one(
    night: Night, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night()
    before = _dataset(spec)
    shorter = "model.max_length=32"
    assert main(["embed", str(spec), "--address", "none", "--set", shorter]) == 2
    assert "already holds vectors made another way" in capsys.readouterr().err
    account = night(shorter)
    assert account["embedded"] == {"text": 16}
    after = _dataset(spec)
    assert (after.version, after.count()) == (2, 16)
    assert after.entry.fingerprint != before.entry.fingerprint
    assert _dataset(spec, 1).to_table().equals(before.to_table())
    account = night()
    assert account["tokens"] == account["resumed_tokens"], "what was made before is there again"
    assert _dataset(spec).entry.fingerprint == before.entry.fingerprint


def test_ids_of_another_type_need_no_new_vectors(night: Night, spec: Path, source: Path) -> None:
    night()
    before = _dataset(spec).to_table().sort_by("id")
    for name in ("a", "b"):
        table = pq.read_table(source / f"{name}.parquet")
        other = table.set_column(0, "doc", table["doc"].cast(pa.string()))
        pq.write_table(other, source / f"{name}.tmp")
        (source / f"{name}.tmp").rename(source / f"{name}.parquet")
    assert night()["embedded"] == {}
    after = _dataset(spec)
    assert after.schema.field("id").type == pa.string()
    assert after.to_table().num_rows == 16
    ordered = after.to_table().to_pylist()
    ordered.sort(key=lambda row: int(row["id"]))
    assert [row["embedding"] for row in ordered] == before["embedding"].to_pylist()


def test_a_kept_column_more_needs_no_new_vectors(night: Night, spec: Path) -> None:
    night("source.keep=[]")
    account = night()
    assert (account["embedded"], _found(account)) == ({}, (0, 0, 0, 16, 0))
    assert sorted(_dataset(spec).to_table(["title"])["title"].to_pylist()) == sorted(
        f"t{n}" for n in range(16)
    )


def test_a_night_after_embed_goes_on_with_its_snapshot_and_embed_with_a_nights(
    night: Night, spec: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed", str(spec), "--address", "none"]
    assert main(command) == 0
    assert night()["up_to_date"]
    _write(source / "b.parquet", _rows(8, 17))
    assert night()["embedded"] == {"text": 1}
    capsys.readouterr()
    assert main(command) == 0
    assert "up to date" in capsys.readouterr().out


def _other(links: Sequence[Link] | None) -> tuple[Link, ...]:
    return tuple(dataclasses.replace(link, content="00" * 16) for link in links or ())


def test_a_link_whose_row_is_not_what_was_compared_is_refused(
    night: Night, source: Path, monkeypatch: pytest.MonkeyPatch, spec: Path
) -> None:
    night()
    rows = _rows(0, 8)
    rows[3]["title"] = "another"
    _write(source / "a.parquet", rows)
    link = Recipe.link

    def other(recipe: Recipe, units: Sequence[WorkUnit]) -> Any:
        return link(recipe, [dataclasses.replace(u, links=_other(u.links)) for u in units])

    monkeypatch.setattr(Recipe, "link", other)
    assert main(["nightly", str(spec), "--address", "none"]) == 1
    assert _dataset(spec).version == 1


def test_what_was_rolled_back_is_not_built_on(night: Night, spec: Path, source: Path) -> None:
    night()
    out = str(spec.parent / "out")
    _write(source / "b.parquet", _rows(8, 20))
    assert night()["embedded"] == {"text": 4}
    doubted = {file.path for file in _dataset(spec).files} - {
        file.path for file in _dataset(spec, 1).files
    }
    assert main(["rollback", out, "1"]) == 0
    account = night()
    assert (account["up_to_date"], account["published"]) == (True, False)
    _write(source / "b.parquet", _rows(8, 21))
    account = night()
    assert account["published"]
    assert account["tokens"] > account["resumed_tokens"] == 0
    assert account["embedded"] == {"text": 5}, "its vectors are made anew"
    assert doubted.isdisjoint(file.path for file in _dataset(spec).files)
    assert _dataset(spec).count() == 21


def test_what_is_published_again_is_built_on_again(night: Night, spec: Path, source: Path) -> None:
    night()
    out = str(spec.parent / "out")
    _write(source / "b.parquet", _rows(8, 20))
    night()
    assert main(["rollback", out, "1"]) == 0
    assert main(["publish", out, "2"]) == 0
    _write(source / "b.parquet", _rows(8, 21))
    assert night()["embedded"] == {"text": 1}


def test_rows_cannot_be_kept_among_rows_of_other_types(
    night: Night, spec: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night()
    (source / "a.parquet").unlink()
    command = ["nightly", str(spec), "--address", "none", "--set", "nightly.on_gone=keep"]
    assert main([*command, "--set", "source.keep=[]"]) == 2
    assert "nightly.on_gone: keep, but 8 rows" in capsys.readouterr().err


def test_whether_gone_rows_are_kept_is_a_change(night: Night, spec: Path, source: Path) -> None:
    night()
    (source / "a.parquet").unlink()
    night("nightly.on_gone=keep")
    assert _dataset(spec).count() == 16
    night()
    assert _dataset(spec).count() == 8


def test_a_snapshot_that_would_lack_a_row_is_not_committed(
    night: Night, spec: Path, source: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    night()
    _write(source / "b.parquet", _rows(8, 20))
    # a comparison that loses a row which was as it was
    monkeypatch.setattr(nights, "less", lambda parts, dead: list(parts[:-1]))
    assert main(["nightly", str(spec), "--address", "none"]) == 1
    assert "20 items are in the source or kept, and the snapshot" in capsys.readouterr().err
    assert _dataset(spec).version == 1


def test_a_row_that_is_kept_does_not_hide_in_a_shard_that_has_it_no_more(
    night: Night, spec: Path, source: Path
) -> None:
    keep = "nightly.on_gone=keep"
    night(keep)
    _write(source / "a.parquet", _rows(0, 7))
    night(keep)
    assert _dataset(spec).count() == 16
    # in another shard, with another text, while its own stays as it is
    _write(source / "b.parquet", [*_rows(8, 16), *_rows(7, 8, body="anew")])
    assert night(keep)["embedded"] == {"text": 1}
    assert sorted(_dataset(spec).to_table(["id"])["id"].to_pylist()) == list(range(16))
    _write(source / "b.parquet", _rows(8, 16))
    night(keep)
    assert _dataset(spec).count() == 16
    night()
    assert _dataset(spec).count() == 15, "and it goes when rows that are gone are to go"
    assert main(["verify", str(spec.parent / "out")]) == 0


def test_kept_columns_that_are_no_values_of_python_are_carried_and_linked(
    night: Night, spec: Path, source: Path
) -> None:
    def write(name: str, rows: int, first: int) -> None:
        whens = pa.array([10**12 + n for n in range(rows)], pa.int64()).cast(pa.timestamp("s"))
        columns = {"doc": range(first, first + rows), "body": [f"b{n % 3}" for n in range(rows)]}
        table = pa.table(columns | {"title": whens, "page": pa.nulls(rows, pa.binary())})
        pq.write_table(table, source / f"{name}.tmp")
        (source / f"{name}.tmp").rename(source / f"{name}.parquet")

    write("a", 6, 0)
    write("b", 3, 10)
    assert night()["embedded"] == {"text": 3}
    write("b", 4, 10)
    assert _found(night()) == (9, 1, 0, 0, 0)
    assert _dataset(spec).to_table(["title"]).num_rows == 10


def test_a_row_of_a_lost_image_and_a_text_that_another_row_shares_is_set_aside_once(
    night: Night, spec: Path, source: Path
) -> None:
    described = yaml.safe_load(spec.read_text())
    spec.write_text(yaml.safe_dump(described))
    for name in ("a", "b"):
        rows = {"doc": [1, 2], "body": ["", ""], "page": [None, "lost.png"], "title": ["x", "y"]}
        rows["doc"] = [n + 10 * (name == "b") for n in (1, 2)]
        pq.write_table(pa.table(rows), source / f"{name}.parquet")
    _write_more = {"doc": [5], "body": ["well"], "page": pa.nulls(1, pa.string()), "title": ["z"]}
    pq.write_table(pa.table(_write_more), source / "c.parquet")
    account = night("compute.unit_rows=1")
    assert account["quarantined"] == {"empty_input": 4, "image_not_found": 2}
    assert account["embedded"] == {"text": 1}


def test_a_night_does_not_carry_a_file_that_is_gone(
    night: Night, spec: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night()
    lost = _dataset(spec).files[0].path
    (spec.parent / "out" / lost).unlink()
    _write(source / "b.parquet", _rows(8, 15))
    assert main(["nightly", str(spec), "--address", "none"]) == 2
    assert f"{lost}, a file of version 1, is gone" in capsys.readouterr().err
    assert _dataset(spec).version == 1


def test_what_was_rolled_back_is_no_base_after_a_rollback_to_another_generation(
    night: Night, spec: Path, source: Path
) -> None:
    out, shorter = str(spec.parent / "out"), "model.max_length=32"
    night()
    night(shorter)
    _write(source / "b.parquet", _rows(8, 20))
    night(shorter)
    doubted = {file.path for file in _dataset(spec).files} - {
        file.path for file in _dataset(spec, 2).files
    }
    assert main(["rollback", out, "2"]) == 0
    assert main(["rollback", out, "1"]) == 0
    _write(source / "b.parquet", [*_rows(8, 21), *_rows(30, 31, body="owl 3")])
    account = night(shorter)
    assert account["embedded"] == {"text": 5}, "of 5 new contents"
    assert doubted.isdisjoint(file.path for file in _dataset(spec).files)
    assert _dataset(spec).count() == 22


def _damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _rows_by_id(spec: Path) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in _dataset(spec).to_table().to_pylist()}


@pytest.mark.fault("file.held")
def test_a_shard_that_cannot_be_read_tonight_is_as_it_was_and_looked_at_again(
    night: Night, spec: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skip = "source.on_bad_file=skip"
    night(skip)
    before, etags = _rows_by_id(spec), {s.etag for s in _shards(spec)}
    _write(source / "a.parquet", [*_rows(0, 8), *_rows(20, 22)])
    _damage(source / "b.parquet")
    account = night(skip)
    assert _found(account) == (16, 2, 0, 0, 0)
    (why,) = account["held"]
    assert f"{source / 'b.parquet'} cannot be read as Parquet: " in why
    assert account["skipped"] == []
    assert {key: _rows_by_id(spec)[key] for key in before} == before
    assert len({s.etag for s in _shards(spec)} & etags) == 1, "not that of the damaged one"
    capsys.readouterr()
    for command in ("nightly", "plan"):
        assert main([command, str(spec), "--address", "none", "--set", skip]) == 0
        said = capsys.readouterr().out
        if command == "nightly":
            told = "; 1 shard that could not be read, with rows that are as they were\nas it was: "
            assert f"up to date: 18 rows embedded before, nothing to do{told}" in said
    _write(source / "b.parquet", [*_rows(8, 15), *_rows(30, 31)])
    account = night(skip)
    assert (_found(account), account["held"]) == ((17, 1, 0, 0, 1), [])
    assert account["embedded"] == {"text": 1}
    assert _dataset(spec).count() == 18


def _shards(spec: Path) -> list[Shard]:
    dataset = _dataset(spec)
    return read_manifest(Folder(dataset.uri), dataset.entry.manifest).shards


def test_a_shard_that_could_not_be_read_and_is_gone_then_is_gone(
    night: Night, spec: Path, source: Path
) -> None:
    skip = "source.on_bad_file=skip"
    night(skip)
    _damage(source / "b.parquet")
    assert _found(night(skip)) == (16, 0, 0, 0, 0)
    (source / "b.parquet").unlink()
    assert _found(night(skip)) == (8, 0, 0, 0, 8)
    assert sorted(_rows_by_id(spec)) == list(range(8))


def test_a_shard_that_could_never_be_read_is_passed_over(
    night: Night, spec: Path, source: Path
) -> None:
    _damage(source / "b.parquet")
    account = night("source.on_bad_file=skip")
    assert (len(account["skipped"]), account["held"]) == (1, [])
    assert _dataset(spec).count() == 8


def test_rows_of_a_shard_that_cannot_be_read_are_not_held_among_rows_of_other_types(
    night: Night, spec: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night()
    rows = {"doc": list("ab"), "body": ["x", "y"], "page": pa.nulls(2, pa.binary())}
    pq.write_table(pa.table(rows | {"title": ["t", "u"]}), source / "a.parquet")
    _damage(source / "b.parquet")
    command = ["nightly", str(spec), "--address", "none", "--set", "source.on_bad_file=skip"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert f"the rows of {source / 'b.parquet'}, which cannot be read, have other columns" in told
    assert _dataset(spec).version == 1


def test_a_row_of_which_a_stage_fails_is_set_aside_for_all_that_it_asks(
    night: Night, spec: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.model.processor import Processor

    original = Processor.text

    def broken(self: Processor, text: str, task: Task) -> PreparedItem:
        if text == "bad":
            raise IndexError("a bug")
        return original(self, text, task)

    monkeypatch.setattr(Processor, "text", broken)
    rows = _rows(0, 8)
    rows[1] |= {"body": "bad", "page": png(1)}
    _write(source / "a.parquet", rows)
    assert night()["quarantined"] == {"unexpected_error": 2}
    assert _aside(spec) == [1, 1]
    assert _dataset(spec).count() == 15
