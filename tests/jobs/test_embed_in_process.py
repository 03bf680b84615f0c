"""`nightjar embed --address none`: from files to a committed dataset, for every format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from torch import nn

from pipeline import Embedder, open_dataset
from pipeline.folder import Folder
from pipeline.model.engine import Engine
from pipeline.model.outputs import Outputs
from pipeline.model.staging import Pack
from pipeline.runs import RUNS
from tests.jobs import (
    TASKS,
    TEXTS,
    embed,
    png,
    write_images,
    write_jsonl,
    write_parquet,
    write_spec,
    write_tar,
)

Captured = pytest.CaptureFixture[str]
DIM = 32


def _rows(uri: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = open_dataset(str(uri)).to_table().to_pylist()
    return rows


def _demand_equal(
    rows: list[dict[str, Any]], checkpoint: Path, items: list[str | bytes], tasks: list[str]
) -> None:
    """Every row has the vectors that the library gives for its item, alone."""
    assert len(rows) == len(items)
    for row, item, task in zip(rows, items, tasks, strict=True):
        embedder = Embedder.load(checkpoint, task, max_length=64, max_pixels=28 * 28 * 6)
        found = embedder.embed([item], dim=DIM, multi=True)
        assert found.multi is not None
        assert row["task"] == task
        assert row["n_tokens"] == found.n_tokens[0]
        np.testing.assert_allclose(row["embedding"], found.single[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(row["multivector"], found.multi[0], rtol=0, atol=5e-6)


@pytest.mark.parametrize("task", ["retrieval.query", "code.passage", "text-matching"])
def test_parquet_is_embedded_with_each_adapter(
    tmp_path: Path, tiny_checkpoint: Path, task: str, capsys: Captured
) -> None:
    source = write_parquet(tmp_path / "a.parquet") | {"task": task}
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 0
    rows = _rows(tmp_path / "out")
    assert [(row["id"], row["title"]) for row in rows] == [
        (10, "A"),
        (11, "B"),
        (12, "C"),
        (13, "D"),
    ]
    assert {row["modality"] for row in rows} == {"text"}
    _demand_equal(rows, tiny_checkpoint, list(TEXTS), [task] * 4)
    out = capsys.readouterr().out
    assert out.startswith("4 rows embedded (4 text), ")
    assert f"dataset: {tmp_path}/out (version 1)" in out
    assert out.splitlines()[-1].startswith("next: ")
    assert out.splitlines()[-1].endswith(f" show {tmp_path}/out")


def test_a_routing_column_sends_each_row_to_its_adapter_once(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    source = write_parquet(tmp_path / "a.parquet") | {"task": {"column": "kind"}}
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 0
    rows = sorted(_rows(tmp_path / "out"), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == [10, 11, 12, 13]
    _demand_equal(rows, tiny_checkpoint, list(TEXTS), list(TASKS))


def test_tar_samples_are_embedded(tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert embed(write_spec(tmp_path, tiny_checkpoint, write_tar(tmp_path / "a.tar"))) == 0
    rows = _rows(tmp_path / "out")
    assert [(row["id"], row["modality"]) for row in rows] == [
        ("x/0", "text"),
        ("x/1", "text"),
        ("x/2", "image"),
    ]
    items: list[str | bytes] = [TEXTS[0], TEXTS[2], png(1)]
    _demand_equal(rows, tiny_checkpoint, items, ["text-matching"] * 3)


def test_a_folder_of_images_is_embedded(tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert embed(write_spec(tmp_path, tiny_checkpoint, write_images(tmp_path / "pages"))) == 0
    rows = _rows(tmp_path / "out")
    assert [row["id"] for row in rows] == ["a.png", "deep/b.png"]
    _demand_equal(rows, tiny_checkpoint, [png(2), png(3)], ["retrieval.passage"] * 2)


def test_jsonl_is_embedded_and_its_malformed_line_set_aside(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_jsonl(tmp_path / "a.jsonl"))
    assert embed(spec, "--json") == 0
    account = json.loads(capsys.readouterr().out)
    assert (account["rows"], account["items"], account["version"]) == (3, 3, 1)
    assert account["embedded"] == {"text": 2}
    assert account["quarantined"] == {"malformed_record": 1}
    assert account["tokens"] == sum(row["n_tokens"] for row in _rows(tmp_path / "out"))
    rows = sorted(_rows(tmp_path / "out"), key=lambda row: row["id"])
    _demand_equal(rows, tiny_checkpoint, list(TEXTS[:2]), list(TASKS[:2]))
    (aside,) = open_dataset(str(tmp_path / "out")).quarantine().to_pylist()
    assert aside["locator"].endswith("a.jsonl#record=1")


def test_several_sources_share_one_dataset(tmp_path: Path, tiny_checkpoint: Path) -> None:
    sources = [write_tar(tmp_path / "a.tar"), write_images(tmp_path / "pages")]
    sources.append(write_jsonl(tmp_path / "a.jsonl") | {"keep": ["kind"]})
    assert embed(write_spec(tmp_path, tiny_checkpoint, sources)) == 0
    rows = _rows(tmp_path / "out")
    ids = ["a.png", "d0", "d1", "deep/b.png", "x/0", "x/1", "x/2"]
    assert sorted(row["id"] for row in rows) == ids
    assert {row["id"]: row["kind"] for row in rows if row["kind"]} == {
        "d0": TASKS[0],
        "d1": TASKS[1],
    }


def test_a_row_with_text_and_image_gives_two_embeddings(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    images = pa.array([png(1), None, png(2), b"<html>"])
    source = write_parquet(tmp_path / "a.parquet", page=images) | {"image": "page"}
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 0
    rows = _rows(tmp_path / "out")
    items: list[str | bytes] = [TEXTS[0], png(1), TEXTS[1], TEXTS[2], png(2), TEXTS[3]]
    assert [(row["id"], row["modality"]) for row in rows] == [
        (10, "text"),
        (10, "image"),
        (11, "text"),
        (12, "text"),
        (12, "image"),
        (13, "text"),
    ]
    _demand_equal(rows, tiny_checkpoint, items, ["retrieval.passage"] * 6)
    (aside,) = open_dataset(str(tmp_path / "out")).quarantine().to_pylist()
    assert (aside["id"], aside["modality"], aside["reason"]) == (13, "image", "not_an_image")
    assert aside["locator"] == f"{tmp_path}/a.parquet#row=3"


@pytest.mark.fault("text.invalid_utf8", "id.null")
def test_bad_rows_are_set_aside_and_their_neighbours_embedded(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    texts = pa.array([b"good", b"\xff", b"", b"fine"], pa.binary()).view(pa.string())
    kinds = pa.array(["code.query", "code.query", "code.query", "nothing"])
    more = {"body": texts, "kind": kinds, "doc": pa.array([1, 2, None, 4])}
    source = write_parquet(tmp_path / "a.parquet", **more) | {"task": {"column": "kind"}}
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 0
    rows = _rows(tmp_path / "out")
    _demand_equal(rows, tiny_checkpoint, ["good"], ["code.query"])
    aside = open_dataset(str(tmp_path / "out")).quarantine().to_pylist()
    assert {row["id"]: row["reason"] for row in aside} == {
        2: "invalid_unicode",
        None: "null_id",
        4: "unknown_task",
    }
    assert "3 quarantined" in capsys.readouterr().out


@pytest.mark.fault("compute.ragged")
def test_the_output_is_read_by_arrow_pandas_and_polars_with_natural_types(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    output = {"uri": str(tmp_path / "out"), "single": {"dim": None}, "multi": {}}
    source = write_parquet(tmp_path / "a.parquet")
    assert embed(write_spec(tmp_path, tiny_checkpoint, source, output)) == 0
    dataset = open_dataset(str(tmp_path / "out"))
    assert {field.name: field.type for field in dataset.schema} == {
        "id": pa.int64(),
        "modality": pa.string(),
        "task": pa.string(),
        "title": pa.string(),
        "n_tokens": pa.int32(),
        "truncated": pa.bool_(),
        "source_hash": pa.binary(32),
        "embedding": pa.list_(pa.float32(), 64),
        "multivector": pa.list_(pa.list_(pa.float16(), 128)),
    }
    metadata = dataset.schema.metadata
    assert metadata[b"fingerprint"].decode() == dataset.entry.fingerprint
    assert (metadata[b"dim"], metadata[b"dtype"]) == (b"64", b"float32")
    assert (metadata[b"multi_dim"], metadata[b"multi_dtype"]) == (b"128", b"float16")
    table = dataset.to_table()
    norms = np.linalg.norm(np.stack(table["embedding"].to_numpy()), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)
    assert [len(m) for m in table["multivector"].to_pylist()] == table["n_tokens"].to_pylist()
    frame = table.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame["embedding"][0].dtype == np.float32
    assert frame["id"].dtype == np.int64
    polar = pl.from_arrow(table)
    assert isinstance(polar, pl.DataFrame)
    assert polar.schema["embedding"] == pl.Array(pl.Float32, 64)
    files = [str(tmp_path / "out" / fragment.path) for fragment in dataset.fragments]
    again = pl.concat([pl.read_ipc(file) for file in files])
    assert again["id"].to_list() == table["id"].to_pylist()
    assert np.array_equal(
        pd.concat([pd.read_feather(file) for file in files])["n_tokens"], frame["n_tokens"]
    )


def test_a_second_run_of_the_same_work_does_nothing(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "a.parquet"))
    assert embed(spec) == 0
    before = _paths(tmp_path / "out")
    capsys.readouterr()
    assert embed(spec, "--json") == 0
    account = json.loads(capsys.readouterr().out)
    assert (account["up_to_date"], account["version"], account["embedded"]) == (
        True,
        1,
        {},
    )
    assert _paths(tmp_path / "out") == before
    write_parquet(tmp_path / "a.parquet", title=list("EFGH"))
    assert embed(spec) == 0
    assert open_dataset(str(tmp_path / "out")).version == 2
    assert [row["title"] for row in _rows(tmp_path / "out")] == list("EFGH")


def _paths(root: Path) -> list[Path]:
    """All that is there but the accounts of runs."""
    return sorted(path for path in root.rglob("*") if path.parent.name != RUNS)


@pytest.mark.parametrize(
    "override",
    ["source.task=retrieval.query", "source.text=kind", "source.id=other", "source.text=null"],
)
def test_another_task_or_column_is_other_work(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured, override: str
) -> None:
    more = {"other": [1, 2, 3, 4], "page": [png(n) for n in range(4)]}
    source = write_parquet(tmp_path / "a.parquet", **more) | {"image": "page"}
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    assert embed(spec) == 0
    capsys.readouterr()
    assert embed(spec, "--set", override, "--json") == 0
    assert json.loads(capsys.readouterr().out)["up_to_date"] is False


@pytest.mark.s3
def test_a_corpus_on_s3_is_embedded_to_s3(
    bucket: str, tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    source = write_parquet(tmp_path / "a.parquet", page=["1.png", "no.png", None, "../x.png"])
    folder = Folder(f"{bucket}/docs")
    folder.put("a.parquet", (tmp_path / "a.parquet").read_bytes())
    folder.put("1.png", png(1))
    source |= {"uri": f"{bucket}/docs/*.parquet", "image": "page"}
    output = {"uri": f"{bucket}/embeddings", "single": {"dim": DIM}, "multi": {"dtype": "float32"}}
    spec = write_spec(tmp_path, tiny_checkpoint, source, output)
    assert embed(spec) == 0
    rows = _rows(f"{bucket}/embeddings")
    items: list[str | bytes] = [TEXTS[0], png(1), *TEXTS[1:]]
    _demand_equal(rows, tiny_checkpoint, items, ["retrieval.passage"] * 5)
    aside = open_dataset(f"{bucket}/embeddings").quarantine()
    assert sorted(aside["reason"].to_pylist()) == ["image_not_found", "unsafe_path"]
    capsys.readouterr()
    assert embed(spec) == 0
    assert "up to date" in capsys.readouterr().out


def _no_ray(*_: object, **__: object) -> None:
    raise AssertionError("a cluster was started")


def test_without_ray_no_cluster_is_started(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", _no_ray)
    spec = write_spec(tmp_path, tiny_checkpoint, write_images(tmp_path / "pages"))
    assert embed(spec) == 0


def test_several_sizes_give_a_column_each_from_the_one_pass(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    output = {"uri": str(tmp_path / "out"), "single": {"dim": [64, 16], "dtype": "float16"}}
    source = write_parquet(tmp_path / "a.parquet")
    assert embed(write_spec(tmp_path, tiny_checkpoint, source, output)) == 0
    dataset = open_dataset(str(tmp_path / "out"))
    columns = [f.name for f in dataset.schema if f.name.startswith(("embedding", "multi"))]
    assert columns == ["embedding_64", "embedding_16"]
    assert dataset.schema.metadata[b"dim"] == b"64,16"
    table = dataset.to_table()
    full, short = (np.stack(table[name].to_numpy()).astype(np.float32) for name in columns)
    cut = full[:, :16] / np.linalg.norm(full[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(short, cut, rtol=0, atol=1e-3)
    assert np.abs(short - full[:, :16]).max() > 1e-2, "the short ones are normalised again"


def test_a_list_of_one_size_is_a_column_named_by_it(tmp_path: Path, tiny_checkpoint: Path) -> None:
    output = {"uri": str(tmp_path / "out"), "single": {"dim": [32]}}
    source = write_parquet(tmp_path / "a.parquet")
    assert embed(write_spec(tmp_path, tiny_checkpoint, source, output)) == 0
    field = open_dataset(str(tmp_path / "out")).schema.field("embedding_32")
    assert field.type == pa.list_(pa.float32(), 32)


@pytest.mark.usefixtures("without_canaries")
@pytest.mark.fault("compute.out_of_memory")
def test_rows_that_do_not_fit_the_memory_are_quarantined_and_their_neighbours_are_not(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    vectors = Engine._vectors

    def cramped(self: Engine, staged: Pack, wanted: Outputs) -> object:
        # no CPU runs out of memory on demand
        if staged.longest > 40:
            raise MemoryError
        return vectors(self, staged, wanted)

    monkeypatch.setattr(Engine, "_vectors", cramped)
    source = write_parquet(tmp_path / "a.parquet", body=["one", "many " * 60, "", "four"])
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 0
    assert [row["id"] for row in _rows(tmp_path / "out")] == [10, 13]
    aside = open_dataset(str(tmp_path / "out")).quarantine().to_pylist()
    assert [(row["id"], row["reason"], row["stage"]) for row in aside] == [
        (11, "oom", "embed"),
        (12, "empty_input", "prepare"),
    ]
    assert "tokens and image patches do not fit the memory of" in aside[0]["message"]
    assert "2 quarantined (1 oom, 1 empty_input)" in capsys.readouterr().out


@pytest.mark.parametrize(("wanted", "compiled"), [("auto", False), ("true", True)])
def test_layers_are_compiled_when_the_spec_says_so(
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    compiled: bool,
) -> None:
    layers: list[object] = []
    # what compiling gives is tested in tests/model; here, whether it is asked for
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: layers.append(self))
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "a.parquet"))
    assert embed(spec, "--set", f"compute.compile={wanted}") == 0
    assert bool(layers) == compiled
