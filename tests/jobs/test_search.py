"""`nightjar search`, from a text that is typed to documents that a person reads."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.cli import main
from jobs.search import snippet
from pipeline.model.geometry import tiny_geometry
from pipeline.model.random_checkpoint import write_random_checkpoint
from tests.jobs import png

TEXTS = {
    "moth": "A nightjar hunts moths in the dark, and sleeps by day on the ground.",
    "date": "Dates are parsed from text; a format that is not known is refused.",
    "escape": "\x1b[2J\x1b[H the screen is mine",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Texts for matching, one passage, and an image that stands for itself."""
    root = tmp_path_factory.mktemp("search")
    count = len(TEXTS)
    table = pa.table(
        {
            "id": [*TEXTS, "page"],
            "text": [*TEXTS.values(), None],
            "image": pa.array([None] * count + [png(1)], pa.binary()),
            "title": ["The nightjar", "Parsing dates", "An \x1b[31mescape", "A page"],
            "body": [*TEXTS.values(), None],
            "year": [2001, 2002, 2003, 2004],
        }
    )
    pq.write_table(table, root / "docs.parquet")
    spec = {
        "name": "search",
        "model": {"path": str(tiny_checkpoint), "dtype": "float32"},
        "source": {
            "uri": str(root / "docs.parquet"),
            "format": "parquet",
            "id": "id",
            "text": "text",
            "image": "image",
            "task": "text-matching",
            "keep": ["title", "body", "year"],
        },
        "output": {"uri": str(root / "out"), "multi": {"dtype": "float16"}},
    }
    (root / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert main(["embed", str(root / "spec.yaml"), "--address", "none"]) == 0
    return root / "out"


def _hits(dataset: Path, capsys: Any, *typed: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["search", str(dataset), *typed, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("name", ["moth", "date"])
def test_the_text_of_a_document_finds_it_first_with_a_cosine_of_one(
    dataset: Path, capsys: Any, name: str
) -> None:
    first = _hits(dataset, capsys, TEXTS[name])[0]
    assert first["id"] == name
    assert first["score"] == pytest.approx(1, abs=1e-5)


def test_with_multi_its_score_is_one_for_each_token(dataset: Path, capsys: Any) -> None:
    hits = _hits(dataset, capsys, TEXTS["moth"], "--multi", "-k", "2")
    assert hits[0]["id"] == "moth"
    assert hits[0]["score"] == pytest.approx(round(hits[0]["score"]), abs=1e-2)
    assert hits[0]["score"] > 5
    assert len(hits) == 2


def test_an_image_finds_the_page_that_it_is(dataset: Path, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "query.png").write_bytes(png(1))
    first = _hits(dataset, capsys, "--image", str(tmp_path / "query.png"))[0]
    assert (first["id"], first["modality"]) == ("page", "image")
    assert first["score"] == pytest.approx(1, abs=1e-5)


def test_a_filter_leaves_what_it_means(dataset: Path, capsys: Any) -> None:
    hits = _hits(dataset, capsys, "a bird", "--filter", 'year >= 2002 and id != "escape"')
    assert sorted(hit["id"] for hit in hits) == ["date", "page"]
    assert main(["search", str(dataset), "a bird", "--filter", "year > 3000"]) == 0
    assert "nothing found among the rows of text-matching" in capsys.readouterr().out


def test_documents_are_shown_to_a_person_and_never_speak_to_the_terminal(
    dataset: Path, capsys: Any
) -> None:
    assert main(["search", str(dataset), "hunts moths"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "The nightjar" in told
    assert "hunts moths in the dark" in told
    assert r"An \x1b[31mescape" in told
    assert "page · image · year: 2004" in told


def test_a_store_finds_what_its_snapshot_does(dataset: Path, capsys: Any, tmp_path: Path) -> None:
    spec = {
        "dataset": {"uri": str(dataset)},
        "store": {
            "kind": "lancedb",
            "url": str(tmp_path / "store"),
            "collection": "docs",
            "vectors": ["single", "multi"],
        },
    }
    path = tmp_path / "backfill.yaml"
    path.write_text(yaml.safe_dump(spec))
    assert main(["search", str(path), "a bird"]) == 2
    assert "leads nowhere yet; `nightjar backfill" in capsys.readouterr().err
    assert main(["backfill", str(path)]) == 0
    assert main(["search", str(path), "a bird", "--version", "1"]) == 2
    assert "--version: '1' means nothing for a store" in capsys.readouterr().err
    for more in ([], ["--multi"], ["--filter", "year < 2004"]):
        here, there = (_hits(where, capsys, "a bird", *more) for where in (dataset, path))
        assert [hit["id"] for hit in here] == [hit["id"] for hit in there]
        scores = [[hit["score"] for hit in hits] for hits in (here, there)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize(
    "kept", [{"vectors": ["single"], "dim": 16}, {"vectors": ["single"]}, {"vectors": ["multi"]}]
)
def test_a_store_is_asked_by_the_vectors_that_it_holds(
    dataset: Path, capsys: Any, tmp_path: Path, kept: dict[str, Any]
) -> None:
    store = {"kind": "lancedb", "url": str(tmp_path / "store"), "collection": "docs"} | kept
    path = tmp_path / "backfill.yaml"
    path.write_text(yaml.safe_dump({"dataset": {"uri": str(dataset)}, "store": store}))
    assert main(["backfill", str(path)]) == 0
    (first, *_) = _hits(path, capsys, "a bird")
    if kept["vectors"] == ["multi"]:
        assert first["score"] > 1, "MaxSim, of all that the query is made of"
        return
    assert first["score"] <= 1 + 1e-5
    assert main(["search", str(path), "a bird", "--multi"]) == 2
    assert f"--multi: '{path}' has no multi-vectors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ([], "search: name a query or an --image, and not both"),
        (["x", "--image", "y.png"], "search: name a query or an --image, and not both"),
        (["  "], "search: the query is empty"),
        (["--image", "nowhere.png"], "--image: cannot read nowhere.png: No such file"),
        (["x", "--filter", "nope == 1"], "--filter: there is no column 'nope'; those are id"),
        (["x", "--filter", "year = 1"], "--filter: 'year = 1' cannot be read; expected"),
        (["x", "--task", "code.query"], "--task: 'code.query' is asked of rows of code, and the"),
        (["x", "--task", "nope"], "--task: 'nope' is not a task; expected one of"),
        (["x", "--version", "7"], "has no version 7"),
    ],
)
def test_each_mistake_is_one_sentence(
    dataset: Path, capsys: Any, typed: list[str], sentence: str
) -> None:
    assert main(["search", str(dataset), *typed]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1


def test_what_cannot_be_embedded_is_told(dataset: Path, capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no image")
    assert main(["search", str(dataset), "--image", str(tmp_path / "no.png")]) == 2
    told = capsys.readouterr().err
    assert "search: the query cannot be embedded: none of JPEG, PNG" in told
    assert told.count("\n") == 1


def test_a_checkpoint_that_did_not_make_the_dataset_is_refused(
    dataset: Path, capsys: Any, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    write_random_checkpoint(tmp_path / "other", tiny_geometry(64), seed=8)
    assert main(["search", str(dataset), "x", "--model", str(tmp_path / "other")]) == 2
    assert "name the checkpoint that made it with --model" in capsys.readouterr().err
    shutil.copytree(tiny_checkpoint, tmp_path / "moved")
    assert _hits(dataset, capsys, TEXTS["moth"], "--model", str(tmp_path / "moved"))


def test_a_snippet_begins_near_the_words_of_the_query_and_fits_its_lines() -> None:
    text = "word " * 200 + "the needle is here " + "word " * 200
    lines = snippet(text, "a needle", 40)
    assert len(lines) == 2
    assert all(len(line) <= 40 for line in lines)
    assert "needle" in " ".join(lines)
    assert lines[0].startswith("… ")
    assert lines[-1].endswith("…")
    assert snippet("short\n text", "x", 40) == ["short text"]
