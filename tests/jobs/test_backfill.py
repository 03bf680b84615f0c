"""`nightjar backfill` and `nightjar audit`, as they are typed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lancedb
import pytest
import yaml
from milvus_lite.server_manager import server_manager_instance

from jobs.backfill import shares
from jobs.cli import main
from pipeline.index.rows import Rows
from tests.index.corpus import Corpus, names

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """A dataset of one version."""
    found = Corpus(root=tmp_path / "dataset")
    found.add(names(40))
    found.commit()
    return found


@pytest.fixture
def spec(tmp_path: Path, corpus: Corpus) -> Path:
    """A spec that leads from it to LanceDB."""
    plain = {
        "dataset": {"uri": str(corpus.root)},
        "store": {
            "kind": "lancedb",
            "url": str(tmp_path / "store"),
            "collection": "docs",
            "vectors": ["single", "multi"],
            "payload": ["title", "year"],
        },
    }
    path = tmp_path / "backfill.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def _report(spec: Path, capsys: Any, *typed: str) -> dict[str, Any]:
    assert main(["backfill", str(spec), "--json", *typed]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _table(spec: Path, name: str) -> Any:
    return lancedb.connect(yaml.safe_load(spec.read_text())["store"]["url"]).open_table(name)


def test_a_snapshot_is_in_the_store_after_a_backfill_and_the_next_does_nothing(
    spec: Path, capsys: Any
) -> None:
    assert main(["backfill", str(spec)]) == 0
    told = capsys.readouterr().out
    assert "40 points of version 1, new collection; 40 written, 0 deleted" in told
    assert f"readers: docs leads to docs_1 in {spec.parent}/store" in told
    assert _table(spec, "docs_1").count_rows() == 40
    assert main(["backfill", str(spec)]) == 0
    assert "40 points of version 1, up to date" in capsys.readouterr().out


def test_a_new_version_brings_only_what_has_changed(
    spec: Path, corpus: Corpus, capsys: Any
) -> None:
    _report(spec, capsys)
    (path,) = corpus.parts
    corpus.bury(path, 0)
    corpus.add(["new"])
    corpus.commit()
    report = _report(spec, capsys)
    assert (report["how"], report["written"], report["deleted"]) == ("difference", 1, 1)
    old = ["--set", "dataset.version=1"]
    assert main(["backfill", str(spec), *old]) == 2
    assert "dataset.version: 1 is older than version 2" in capsys.readouterr().err
    assert _report(spec, capsys, *old, "--older")["version"] == 1


def test_readers_are_led_to_a_new_collection_and_back(spec: Path, capsys: Any) -> None:
    _report(spec, capsys)
    beside = _report(spec, capsys, "--beside")
    assert (beside["how"], beside["previous"]) == ("new collection", "docs_1")
    assert main(["backfill", str(spec), "--rollback"]) == 0
    assert "readers: docs leads to docs_1 again, with version 1" in capsys.readouterr().out


def test_an_audit_finds_what_was_lost_and_changed_and_repairs_it(spec: Path, capsys: Any) -> None:
    _report(spec, capsys)
    assert main(["audit", str(spec)]) == 0
    assert "all stamps agree, and 40 rows that were read back" in capsys.readouterr().out
    table = _table(spec, "docs_1")
    table.delete("id in ('doc-1', 'doc-2')")
    table.update(where="id = 'doc-3'", values={"title": "\x1b[2J somebody else's"})
    assert main(["audit", str(spec), "--rows", "all"]) == 1
    told = capsys.readouterr()
    assert "38 points, 40 expected of version 1; 2 missing or outdated, 0 too many" in told.out
    assert "doc-3: other title" in told.out
    assert "`nightjar audit --repair` makes it right" in told.err
    assert main(["audit", str(spec), "--rows", "all", "--repair"]) == 0
    assert main(["audit", str(spec), "--rows", "all"]) == 0


def test_an_audit_repairs_points_that_are_there_twice(spec: Path, capsys: Any) -> None:
    _report(spec, capsys)
    table = _table(spec, "docs_1")
    table.add(table.search().where("id in ('doc-5', 'doc-6')").to_arrow())
    assert main(["audit", str(spec), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["doubled"] == 2
    assert main(["audit", str(spec), "--repair"]) == 0
    assert main(["audit", str(spec)]) == 0
    assert _table(spec, "docs_1").count_rows() == 40


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (
            ["store.kind=weaviate"],
            "store.kind: 'weaviate' is not valid; expected lancedb, milvus, pgvector or qdrant",
        ),
        (["store.kind=milvus", "store.vectors=[multi]"], "vectors: milvus has no multi-vectors"),
        (["store.vectors=[dense]"], "store.vectors.0: 'dense' is not valid"),
        (["store.payload=[nope]"], "store.payload: the dataset has no column 'nope'; it has id"),
        (["store.url=postgresql://me:hunter2@host/db"], "there is a password in a URL"),
        (["store.secret=hunter2"], "store.secret: expected env:NAME or file:PATH"),
        (
            ["store.secret=env:NO_SUCH_NAME"],
            "store.secret: env:NO_SUCH_NAME names a variable that the environment",
        ),
        (["store.colection=x"], "store.colection: unknown key; did you mean 'collection'"),
        (["dataset.version=9"], "has no version 9; it has 1 to 1"),
        (["store.collection=Docs"], "store.collection: 'Docs' is not valid; expected the name"),
        (["store.vectors=[multi]", "store.dim=8"], "store.dim: means nothing without single"),
        (["store.payload=[title, title]"], "store.payload: 'title' is there twice"),
    ],
)
def test_each_mistake_is_one_sentence(
    spec: Path, capsys: Any, typed: list[str], sentence: str
) -> None:
    overrides = [part for one in typed for part in ("--set", one)]
    assert main(["backfill", str(spec), *overrides]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert "hunter2" not in told


def test_a_store_among_the_files_of_the_dataset_is_refused(spec: Path, capsys: Any) -> None:
    root = yaml.safe_load(spec.read_text())["dataset"]["uri"]
    for url in (root, f"{root}/index"):
        assert main(["backfill", str(spec), "--set", f"store.url={url}"]) == 2
        assert f"store.url: '{url}' is among the files of the dataset" in capsys.readouterr().err


def test_a_file_of_milvus_is_filled_by_this_process_alone(
    spec: Path, tmp_path: Path, capsys: Any
) -> None:
    plain = yaml.safe_load(spec.read_text())
    url = str(tmp_path / "milvus.db")
    plain["store"] |= {"kind": "milvus", "url": url, "vectors": ["single"]}
    spec.write_text(yaml.safe_dump(plain))
    try:
        assert main(["backfill", str(spec), "--address", "auto"]) == 2
        assert "milvus.db' is in this process alone" in capsys.readouterr().err
        assert _report(spec, capsys)["points"] == 40
        assert _report(spec, capsys)["how"] == "up to date"
        assert main(["audit", str(spec)]) == 0
    finally:
        server_manager_instance.release_server(url)


def test_a_password_in_the_url_of_the_store_is_refused_unseen(spec: Path, capsys: Any) -> None:
    plain = yaml.safe_load(spec.read_text())
    plain["store"] |= {"kind": "pgvector", "url": "postgresql://me:hunter2@host/db"}
    spec.write_text(yaml.safe_dump(plain))
    assert main(["backfill", str(spec)]) == 2
    told = capsys.readouterr().err
    assert "store.url: there is a password in the URL; name it as secret" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("url", [":memory:", "./engine"])
def test_an_engine_of_one_process_is_not_filled_by_a_cluster(
    spec: Path, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["--set", "store.kind=qdrant", "--set", f"store.url={url!r}"]
    assert main(["backfill", str(spec), *overrides, "--address", "local"]) == 2
    assert f"store.url: {url!r} is in this process alone" in capsys.readouterr().err


def test_an_audit_of_nothing_says_so(spec: Path, capsys: Any) -> None:
    assert main(["audit", str(spec)]) == 2
    assert "store.collection: 'docs' leads nowhere yet" in capsys.readouterr().err


@pytest.mark.slow
def test_a_backfill_that_is_killed_again_and_again_converges(
    spec: Path, corpus: Corpus, capsys: Any
) -> None:
    for number in range(30):
        corpus.add(names(20, f"file{number}"))
    corpus.commit()
    command = [sys.executable, "-m", "jobs.cli", "backfill", str(spec)]
    command += ["--set", "store.feed={batch_points: 20}"]
    drawn = random.Random(7)
    killed = 0
    for _ in range(4):
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(drawn.uniform(1.5, 3.0))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    assert main(["backfill", str(spec)]) == 0
    assert main(["audit", str(spec), "--rows", "all"]) == 0


def test_shares_hold_all_rows_in_order_and_files_whole(corpus: Corpus) -> None:
    for number in range(5):
        corpus.add(names(7, f"more{number}"))
    rows = [Rows(part=part) for part in corpus.commit().parts]
    found = list(shares(rows, 15))
    assert [one.part.file.path for some in found for one in some] == [
        r.part.file.path for r in rows
    ]
    assert [sum(one.count for one in some) for some in found] == [40, 14, 14, 7]
