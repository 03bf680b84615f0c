"""`nightjar evaluate`, from queries and judgements in files to a table, a record and a chart."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from jobs.cli import main
from pipeline import Embedder, open_dataset
from pipeline.index.scoring import maxsim
from pipeline.model.geometry import tiny_geometry
from pipeline.model.random_checkpoint import write_random_checkpoint
from pipeline.ranking import in_order, ndcg
from tests.jobs import png

WORDS = "nightjar moth dusk heath wing nest barn owl date parse byte queue"
# the number first: tokens do not see those behind them, and of equal beginnings scores are equal
TEXTS = {f"d{n:02}": f"{n} " + " ".join(WORDS.split()[n % 5 : n % 5 + 4]) for n in range(12)}
QUERIES = {"q1": "who hunts moths at dusk", "q2": "how is a date parsed", "q3": "an owl in a barn"}
QRELS = [("q1", "d01", 2), ("q1", "d07", 1), ("q2", "d04", 1), ("q3", "d03", 1), ("q3", "gone", 1)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Passages, the first three with an image, two pages, and a query that is no document."""
    root = tmp_path_factory.mktemp("evaluate")
    images = [*map(png, range(3)), *[None] * 9, png(8), png(9), None]
    table = pa.table(
        {
            "id": [*TEXTS, "p1.png", "p2.png", "q9"],
            "text": [*TEXTS.values(), None, None, QUERIES["q1"]],
            "image": pa.array(images, pa.binary()),
            "task": [*["retrieval.passage"] * 14, "retrieval.query"],
        }
    )
    pq.write_table(table, root / "docs.parquet")
    spec = {
        "name": "evaluate",
        "model": {"path": str(tiny_checkpoint), "dtype": "float32", "max_length": 64},
        "source": {
            "uri": str(root / "docs.parquet"),
            "format": "parquet",
            "id": "id",
            "text": "text",
            "image": "image",
            "task": {"column": "task"},
        },
        "output": {"uri": str(root / "out"), "multi": {"dtype": "float16"}},
    }
    (root / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert main(["embed", str(root / "spec.yaml"), "--address", "none"]) == 0
    return root / "out"


@pytest.fixture
def spec(tmp_path: Path, dataset: Path, tiny_checkpoint: Path) -> Path:
    """The layout of BEIR, with a query that nobody has judged."""
    lines = [{"_id": name, "text": text} for name, text in (QUERIES | {"alone": "?"}).items()]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = [("query-id", "corpus-id", "score"), *QRELS, ("nobody", "d01", 1)]
    (tmp_path / "test.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    plain = {
        "dataset": {"uri": str(dataset)},
        "model": {"path": str(tiny_checkpoint)},
        "queries": {"uri": str(tmp_path / "queries.jsonl"), "task": "retrieval.query"},
        "qrels": str(tmp_path / "test.tsv"),
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(plain))
    return tmp_path / "evaluate.yaml"


def _record(spec: Path, capsys: Any, *typed: str) -> dict[str, Any]:
    capsys.readouterr()
    out = spec.parent / "result"
    assert main(["evaluate", str(spec), "--out", str(out), "--json", *typed]) == 0
    told = capsys.readouterr()
    assert told.out.isascii()
    found: dict[str, Any] = json.loads(told.out)
    assert json.loads((out / "evaluation.json").read_text()) == found
    assert "written: " in told.err
    with Image.open(out / "evaluation.png") as picture:
        assert picture.format == "PNG"
    return found


def _by_hand(dataset: Path, checkpoint: Path, dim: int | None, task: str) -> float:
    """The mean nDCG@10 when queries are embedded by the library, for a task."""
    asked = Embedder.load(str(checkpoint), task=task).embed(list(QUERIES.values()), multi=True)
    rows = open_dataset(str(dataset)).to_table().to_pylist()
    assert asked.multi is not None
    gains = []
    for name, single, multi in zip(QUERIES, asked.single, asked.multi, strict=True):
        scores: dict[str, float] = {}
        for row in rows:
            if row["task"] != "retrieval.passage":
                continue
            if dim is None:
                vectors = np.stack(row["multivector"])
                score = float(maxsim(multi, vectors, np.array([len(vectors)]))[0])
            else:
                sides = single[:dim], np.asarray(row["embedding"])[:dim]
                score = float(np.dot(*(side / np.linalg.norm(side) for side in sides)))
            scores[row["id"]] = max(score, scores.get(row["id"], -9.0))
        grades = {document: float(grade) for query, document, grade in QRELS if query == name}
        ranked = in_order((score, name) for name, score in scores.items())
        gains.append(ndcg([name for _, name in ranked], grades, 10))
    return float(np.mean(gains))


def test_queries_have_the_prompt_and_adapter_of_their_task(
    spec: Path, dataset: Path, tiny_checkpoint: Path, capsys: Any
) -> None:
    results = _record(spec, capsys)["results"]
    assert [(one["vectors"], one["dim"]) for one in results] == [
        ("single", 16),
        ("single", 32),
        ("single", 64),
        ("multi", results[-1]["dim"]),
    ]
    found = [one["measures"]["ndcg@10"]["mean"] for one in results]
    dims = (16, 32, 64, None)
    assert found == pytest.approx(
        [_by_hand(dataset, tiny_checkpoint, dim, "retrieval.query") for dim in dims]
    )
    # so that the test could see another prompt, or another adapter
    for other in ("retrieval.passage", "text-matching"):
        assert found != pytest.approx(
            [_by_hand(dataset, tiny_checkpoint, dim, other) for dim in dims]
        )


def test_the_first_document_is_the_one_that_search_finds_first(
    spec: Path, dataset: Path, capsys: Any
) -> None:
    for typed in ([], ["--multi"]):
        capsys.readouterr()
        condition = 'task == "retrieval.passage"'
        typed += ["--task", "retrieval.query", "--filter", condition, "-k", "1", "--json"]
        assert main(["search", str(dataset), QUERIES["q2"], *typed]) == 0
        first = json.loads(capsys.readouterr().out)["id"]
        qrels = f"query-id\tcorpus-id\tscore\nq2\t{first}\t1\n"
        (spec.parent / "test.tsv").write_text(qrels)
        at = -1 if "--multi" in typed else -2
        measures = _record(spec, capsys)["results"][at]["measures"]
        assert measures["mrr@10"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_a_table_and_what_was_left_out_are_printed(
    spec: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(spec.parent)
    long = {"_id": "q3", "text": "an owl " * 20}
    with (spec.parent / "queries.jsonl").open("r+") as file:
        kept = file.read().splitlines()
        file.seek(0)
        file.write("\n".join([*kept[:2], json.dumps(long), *kept[3:]]))
    assert main(["evaluate", str(spec)]) == 0
    told = capsys.readouterr().out
    assert (spec.parent / "evaluation" / "evaluation.png").exists()
    assert "3 queries of retrieval.query on 14 documents of retrieval.passage, version 1" in told
    for head in ("vectors", "bytes", "nDCG@5", "nDCG@10", "recall@100", "MRR@10"):
        assert head in told
    assert "single 16" in told and "single 64" in told and "multi 128" in told
    assert "queries without a judgement, left out: 1" in told
    assert "judgements of queries that are not there, left out: 1" in told
    assert "queries cut to model.max_length: 1" in told
    assert (
        "judged documents that are not in the dataset: 1 of 5; relevant ones, not found: 1 of 5"
        in told
    )
    assert "cosine of the text and the image of a document: " in told
    assert "(3 pairs)" in told and "(6 pairs)" in told
    assert "nothing is relevant" not in told
    assert max(map(len, told.splitlines()[1:6])) <= 100


def test_numbers_are_in_the_record(spec: Path, dataset: Path, capsys: Any) -> None:
    found = _record(spec, capsys)
    assert (found["version"], found["documents"], found["rows"]) == (1, 14, 17)
    assert found["coverage"]["queries"] == 3
    assert found["coverage"]["unjudged"] == 1
    assert found["no_alignment"] is None
    rows = open_dataset(str(dataset)).to_table().to_pylist()
    by_modality = [
        np.array([row["embedding"] for row in rows if row["modality"] == modality][:3])
        for modality in ("text", "image")
    ]
    products = by_modality[0] @ by_modality[1].T
    assert found["alignment"] == {
        "matching": pytest.approx(np.trace(products) / 3, abs=1e-6),
        "random": pytest.approx((products.sum() - np.trace(products)) / 6, abs=1e-6),
        "pairs": 3,
        "random_pairs": 6,
    }
    first = found["results"][0]
    assert first["bytes_per_document"] == pytest.approx(17 / 14 * 16 * 4)


def test_a_visual_set_in_parquet_is_evaluated_likewise(
    spec: Path, capsys: Any, tmp_path: Path
) -> None:
    asked = pa.table({"query-id": [1, 2], "query": ["a page", "another"], "language": ["en"] * 2})
    pq.write_table(asked, tmp_path / "asked.parquet")
    judged = pa.table({"query-id": [1, 2], "corpus-id": ["p1.png", "p2.png"], "score": [2, 1]})
    pq.write_table(judged, tmp_path / "judged.parquet")
    keys = [f"queries.uri={tmp_path}/asked.parquet", "queries.id=query-id", "queries.text=query"]
    keys.append(f"qrels={tmp_path}/judged.parquet")
    two = _record(spec, capsys, *(f"--set={key}" for key in keys))
    assert two["coverage"]["queries"] == 2
    assert two["coverage"]["relevant_absent"] == 0
    # the layout in which pages stand beside their queries
    beside = pa.table({"query": ["a page", "another", None], "page": ["p1.png", "p2.png", "d01"]})
    pq.write_table(beside, tmp_path / "beside.parquet")
    keys = [f"queries.uri={tmp_path}/beside.parquet", "queries.text=query"]
    keys += ["queries.relevant=page", "qrels=null"]
    one = _record(spec, capsys, *(f"--set={key}" for key in keys))
    for each, other in zip(one["results"], two["results"], strict=True):
        assert each["measures"] == other["measures"]


def test_a_document_with_the_id_of_its_query_is_left_out_as_beir_does(
    spec: Path, capsys: Any
) -> None:
    asked = {"_id": "d05", "text": TEXTS["d05"]}
    (spec.parent / "queries.jsonl").write_text(json.dumps(asked))
    (spec.parent / "test.tsv").write_text("query-id\tcorpus-id\tscore\nd05\td05\t1\n")
    found = _record(spec, capsys)
    assert found["coverage"]["identical"] == found["coverage"]["identical_relevant"] == 1
    assert {one["measures"]["recall@100"]["mean"] for one in found["results"]} == {0.0}
    found = _record(spec, capsys, "--set", "ignore_identical_ids=false")
    assert found["coverage"]["identical"] == 0
    assert {one["measures"]["recall@100"]["mean"] for one in found["results"]} == {1.0}


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("queries.task=code.query", "queries.task: 'code.query' finds rows of code.passage, and"),
        ("queries.task=search", "queries.task: 'search' is not a task; expected one of retrieval"),
        ("queries.uri=nowhere.jsonl", "queries.uri: 'nowhere.jsonl' is not there"),
        ("qrels=nowhere.tsv", "qrels: 'nowhere.tsv' is not there"),
        ("dataset.version=7", "has no version 7"),
        ("dataset.uri=nowhere", "nowhere"),
        ("model.max_length=100", "model.path: "),
        ("model.dtype=bfloat16", "model.dtype: 'bfloat16' is not what version 1 was computed in"),
        ("model.path=nowhere", "nowhere"),
        ("multi.rerank=10", "multi.rerank: 10 is not valid; expected a whole number from 100"),
        ("query.task=x", "query: unknown key; did you mean 'queries'?"),
    ],
)
def test_each_mistake_is_one_sentence(spec: Path, capsys: Any, key: str, told: str) -> None:
    assert main(["evaluate", str(spec), "--set", key, "--out", str(spec.parent / "r")]) == 2
    error = capsys.readouterr().err
    assert told.rstrip("?") in error
    assert error.count("\n") == 1


def test_a_checkpoint_that_did_not_make_the_dataset_is_refused(
    spec: Path, capsys: Any, tmp_path: Path
) -> None:
    write_random_checkpoint(tmp_path / "other", tiny_geometry(64), seed=8)
    key = f"model.path={tmp_path}/other"
    assert main(["evaluate", str(spec), "--set", key, "--out", str(tmp_path / "r")]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"nightjar: model.path: '{tmp_path}/other' with the settings")
    assert "checkpoint that made it with model.path, or a version" in told
    assert "with dataset.version" in told


def test_what_cannot_be_embedded_or_written_is_told(
    spec: Path, capsys: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert main(["evaluate", str(spec), "--out", str(tmp_path / "file" / "r")]) == 2
    assert "--out: cannot write to " in capsys.readouterr().err
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "half \\ud800"}')
    assert main(["evaluate", str(spec), "--out", str(tmp_path / "r")]) == 2
    told = capsys.readouterr().err
    assert "queries.uri: the query 'q1' cannot be embedded: the text is not Unicode" in told
    assert told.count("\n") == 1
