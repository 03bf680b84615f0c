"""A night compared on a real cluster plans what one compared in this process plans, to the row."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from tests.end_to_end.clusters import Cluster, finished
from tests.end_to_end.planned import plan
from tests.end_to_end.small_corpus import write_corpus, write_spec

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def spec(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A corpus of its own that was embedded, and of which much has changed since."""
    corpus = tmp_path / "corpus"
    write_corpus(corpus)
    path = write_spec(tmp_path / "spec.yaml", corpus, tiny_checkpoint, tmp_path / "out")
    assert main(["nightly", str(path), "--address", "none"]) == 0
    _change(corpus / "docs" / "part-0.parquet")
    shutil.rmtree(corpus / "pages" / "deep")
    lines = (corpus / "lines.jsonl").read_text().splitlines()
    (corpus / "lines.jsonl").write_text("\n".join([*lines[::-1], lines[0]]) + "\n")
    return path


def _change(shard: Path) -> None:
    """Rows in another order, one gone, one told otherwise, one changed, and new ones of contents
    that are known, unknown, faulty and twice the same."""
    rows: list[dict[str, Any]] = pq.read_table(shard).to_pylist()
    schema = pq.read_schema(shard)
    rows[0]["title"], rows[1]["body"] = "another", "another text"
    new = [
        {**rows[4], "doc": f"new/{number}", "body": body}
        for number, body in enumerate([rows[4]["body"], "one", "one", "", None])
    ]
    shard.unlink()
    pq.write_table(pa.Table.from_pylist([*rows[:2], *rows[:2:-1], *new], schema), shard)


_DOUBLES = "limits.duplicate_ids=keep"
"""A row that is twice in a shard is one that a comparison must count."""


def _expected(spec: Path, *settings: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan(str(spec), "none", *settings, _DOUBLES))
    return found


def _planned(spec: Path, address: str, *settings: str) -> dict[str, Any]:
    done = finished("tests.end_to_end.planned", spec, address, *settings, _DOUBLES)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_what_has_changed_is_found_in_every_way(spec: Path, cluster: Cluster) -> None:
    expected = _expected(spec, "nightly.on_gone=keep")
    assert all(expected["counts"].values()), "a night with everything in it"
    assert any(part["shard"] == "" for part in expected["carried"]), "rows that are kept"
    assert {unit["links"] is None for unit in expected["rest"]} == {True, False}
    for address in (cluster.address, cluster.client_address):
        assert _planned(spec, address, "nightly.on_gone=keep") == expected


@pytest.mark.long
def test_a_first_night_and_one_that_deletes_everything_are_the_same_too(
    spec: Path, cluster: Cluster, tmp_path: Path
) -> None:
    for settings in ([f"output.uri={tmp_path / 'other'}"], ["source.0.keep=[]"]):
        assert _planned(spec, cluster.address, *settings) == _expected(spec, *settings)


def test_a_shard_that_cannot_be_read_is_told_in_the_words_of_one_process(
    spec: Path, cluster: Cluster
) -> None:
    program = "tests.end_to_end.planned"
    shard = spec.parent / "corpus" / "docs" / "part-0.parquet"
    content = bytearray(shard.read_bytes())
    # behind its footer: planning looks there alone
    content[8:200] = b"\xff" * 192
    shard.write_bytes(content)
    said = [finished(program, spec, address, _DOUBLES) for address in ("none", cluster.address)]
    told = [done.err.strip().splitlines()[-1] for done in said]
    assert [done.code for done in said] == [1, 1]
    assert "part-0.parquet cannot be read" in told[0]
    assert told[1].endswith(told[0].partition(": ")[2])
