"""The quickstart corpus is big enough, valid, good to look at, and the same every time."""

import io
import json
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.corpus import build
from pipeline.corpus.build import CorpusSummary, build_corpus
from pipeline.corpus.charts import axis_ticks
from pipeline.corpus.passages import split
from pipeline.corpus.sheet import HEIGHT, MARGIN, WIDTH, text_width, wrap
from pipeline.corpus.stdlib import read_library

TASKS = {"retrieval.query", "retrieval.passage", "code.query", "code.passage", "text-matching"}
ADAPTERS = {"retrieval", "code", "text-matching"}

Corpus = tuple[Path, CorpusSummary]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    directory = tmp_path_factory.mktemp("quickstart") / "corpus"
    return directory, build_corpus(directory)


@pytest.fixture(scope="session")
def documents(corpus: Corpus) -> pa.Table:
    directory, summary = corpus
    shards = [name for name in summary.shards if name.endswith(".parquet")]
    return pa.concat_tables([pq.read_table(directory / name) for name in shards])


def _bytes(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def _samples(directory: Path) -> dict[str, dict[str, bytes]]:
    """The tar's members, grouped; fails when the members of a key do not follow one another."""
    groups: dict[str, dict[str, bytes]] = defaultdict(dict)
    last = ""
    with tarfile.open(directory / "samples/part-0.tar") as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            assert key == last or key not in groups
            file = tar.extractfile(member)
            assert file is not None
            groups[key][extension] = file.read()
            last = key
    return groups


def _check_page(image: Image.Image) -> None:
    assert image.size == (WIDTH, HEIGHT)
    grey = np.asarray(image.convert("L"))
    dark = grey < 128
    assert 0.01 < dark.mean() < 0.3, "blank, or more ink than paper"
    edge = MARGIN - 4
    margins = (grey[:, :edge], grey[:, -edge:], grey[:20], grey[-20:])
    assert min(int(margin.min()) for margin in margins) > 240, "ink in the margins"


def test_the_corpus_has_thousands_of_rows_in_several_shards(
    corpus: Corpus, documents: pa.Table
) -> None:
    directory, summary = corpus
    assert summary.documents == documents.num_rows >= 5_000
    assert summary.rows == summary.documents + summary.samples + summary.pages
    assert sum(name.endswith(".parquet") for name in summary.shards) >= 3
    assert sum(name.endswith(".tar") for name in summary.shards) == 1
    assert all((directory / name).is_file() for name in summary.shards)


def test_rows_have_unique_ids_known_tasks_and_short_text(documents: pa.Table) -> None:
    assert documents.column_names == ["id", "text", "task", "title", "module", "kind"]
    assert all(field.type == pa.string() for field in documents.schema)
    rows = documents.to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["task"] for row in rows} == TASKS
    assert {row["kind"] for row in rows} == {"prose", "code"}
    assert all(row["text"].strip() and len(row["text"]) <= 1_000 for row in rows)
    assert sum(len(row["text"]) for row in rows) < 2_000_000


def test_no_text_is_repeated_within_a_task(documents: pa.Table) -> None:
    rows = documents.to_pylist()
    repeated = Counter((row["task"], row["text"]) for row in rows)
    assert max(repeated.values()) == 1


def test_every_query_has_its_answer_in_the_corpus(documents: pa.Table) -> None:
    rows = documents.to_pylist()
    texts = {row["id"]: row["text"] for row in rows}
    queries = [row for row in rows if row["task"] in {"retrieval.query", "code.query"}]
    assert len(queries) > 300
    for row in queries:
        role = "code" if row["task"] == "code.query" else "doc"
        answer = texts[row["id"].rpartition("#")[0] + f"#{role}"]
        assert row["text"] not in answer


def test_test_queries_are_no_rows_and_their_answers_are(
    corpus: Corpus, documents: pa.Table
) -> None:
    directory, summary = corpus
    rows = {row["id"]: row for row in documents.to_pylist()}
    texts = {row["text"] for row in rows.values()}
    lines = (directory / "queries.jsonl").read_text("utf-8").splitlines()
    queries = {query["_id"]: query["text"] for query in map(json.loads, lines)}
    assert len(queries) == len(lines) == summary.queries == 200
    assert not queries.keys() & rows.keys()
    assert not texts.intersection(queries.values())
    head, *judged = (directory / "qrels/test.tsv").read_text("utf-8").splitlines()
    assert head == "query-id\tcorpus-id\tscore"
    grades: dict[str, list[int]] = defaultdict(list)
    for line in judged:
        query, row, grade = line.split("\t")
        assert rows[row]["task"] == "retrieval.passage"
        assert queries[query] not in rows[row]["text"]
        # the beginning of the docstring that is asked for, or what follows it
        assert row.startswith(query.replace("#query", "#doc"))
        assert (grade == "2") == row.endswith("#doc")
        grades[query].append(int(grade))
    assert grades.keys() == queries.keys()
    assert all(max(found) == 2 for found in grades.values())
    assert any(1 in found for found in grades.values())


def test_every_row_group_mixes_all_three_adapters(corpus: Corpus) -> None:
    directory, summary = corpus
    for name in summary.shards[:-1]:
        shard = pq.ParquetFile(directory / name)
        assert shard.num_row_groups > 1
        for group in range(shard.num_row_groups):
            tasks = shard.read_row_group(group, columns=["task"])["task"].to_pylist()
            assert {task.split(".")[0] for task in tasks} == ADAPTERS


def test_the_tar_is_grouped_by_key_and_holds_texts_and_images(corpus: Corpus) -> None:
    directory, summary = corpus
    samples = _samples(directory)
    assert len(samples) == summary.samples
    kinds = Counter(tuple(sorted(sample)) for sample in samples.values())
    assert set(kinds) == {("json", "txt"), ("jpg", "json"), ("jpg", "json", "txt")}
    for sample in samples.values():
        assert set(json.loads(sample["json"])) == {"title", "module"}
        if "txt" in sample:
            assert sample["txt"].decode().strip()
        if "jpg" in sample:
            _check_page(Image.open(io.BytesIO(sample["jpg"])))


def test_page_images_have_one_size_ink_and_clean_margins(corpus: Corpus) -> None:
    directory, summary = corpus
    paths = sorted((directory / "pages").rglob("*.png"))
    assert len(paths) == summary.pages
    assert len({path.parent.name for path in paths}) == 4
    for path in paths:
        with Image.open(path) as image:
            _check_page(image)


def test_a_second_build_returns_at_once_and_changes_nothing(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, summary = corpus
    before = _bytes(directory)
    monkeypatch.setattr(build, "_write_corpus", lambda _: pytest.fail("built again"))
    assert build_corpus(directory) == summary
    assert _bytes(directory) == before


def test_two_builds_are_identical_and_a_damaged_corpus_is_replaced(
    corpus: Corpus, tmp_path: Path
) -> None:
    directory, summary = corpus
    damaged = tmp_path / "other"
    (damaged / "docs").mkdir(parents=True)
    (damaged / "CORPUS.json").write_text('{"identity": "of another Python"}')
    assert build_corpus(damaged) == summary
    assert _bytes(damaged) == _bytes(directory)
    assert [entry.name for entry in tmp_path.iterdir()] == ["other"]


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"thesis\.txt"):
        build_corpus(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_nothing_private_is_in_the_corpus(documents: pa.Table) -> None:
    names = [id.partition("#")[0] for id in documents["id"].to_pylist()]
    private = [
        name
        for name in names
        if any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
    ]
    assert not private


def test_sources_are_read_without_importing_them(tmp_path: Path) -> None:
    good = 'def add(a, b):\n    """Add two.\n\n    Really.\n    """\n\n    return a + b\n'
    (tmp_path / "good.py").write_text(f'raise SystemExit("imported")\n{good}')
    (tmp_path / "bad.py").write_text("def :")
    (tmp_path / "coded.py").write_bytes(b"# -*- coding: nonsense -*-\n")
    library = read_library(tmp_path)
    assert [module.name for module in library.modules] == ["good"]
    (definition,) = library.modules[0].definitions
    assert definition.code == "def add(a, b):\n    return a + b"
    assert definition.doc == "Add two.\n\nReally."
    assert library.topics == ()


def test_an_installation_without_sources_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(build, "stdlib_root", lambda: tmp_path / "lib")
    with pytest.raises(RuntimeError, match="libpython3-stdlib"):
        build_corpus(tmp_path / "corpus")
    assert [entry.name for entry in tmp_path.iterdir()] == ["lib"]


@pytest.mark.parametrize("text", ["", "word", "a b\n\nc d\n\n" * 40, "x" * 95, "line\n" * 30])
def test_split_keeps_every_word_and_the_limit(text: str) -> None:
    pieces = split(text, limit=30)
    assert all(0 < len(piece) <= 30 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@pytest.mark.parametrize("text", ["", "one", "some words to wrap " * 9, "a_very.long_name" * 12])
def test_wrapped_lines_fit_and_keep_every_letter(text: str) -> None:
    lines = wrap(text, 11, 100)
    assert all(text_width(line, 11) <= 100 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize("highest", [1, 4, 5, 6, 29, 99, 100, 101, 2_014])
def test_axis_ticks_are_round_few_and_reach_the_highest(highest: int) -> None:
    ticks = axis_ticks(highest)
    assert ticks[0] == 0 and ticks[-1] >= highest > ticks[-2]
    assert 2 <= len(ticks) <= 6
