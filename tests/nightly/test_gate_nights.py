"""Nights that readers must not get, and what may be done about them; and ordinary ones."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor

from jobs.cli import main
from pipeline.dataset import open_dataset
from pipeline.errors import OutputError
from pipeline.folder import Folder
from pipeline.log import list_versions, read_entry
from pipeline.model import engine as engines
from pipeline.model.engine import Engine
from pipeline.model.outputs import Embeddings
from pipeline.nightly import evidence

_WORDS = [
    "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz", k=3 + seed % 6))
    for seed in range(500)
]
_SHARDS, _ROWS = 4, 60

Night = Callable[..., str]


def _text(row: int) -> str:
    of_row = random.Random(row)
    return " ".join(of_row.choices(_WORDS, k=of_row.randint(5, 20)))


def _write(path: Path, rows: range) -> None:
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.table({"doc": list(rows), "body": [_text(row) for row in rows]}), temporary)
    temporary.rename(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four shards of sixty rows."""
    folder = tmp_path / "source"
    folder.mkdir()
    for shard in range(_SHARDS):
        _write(folder / f"{shard}.parquet", range(shard * _ROWS, (shard + 1) * _ROWS))
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
            "task": "retrieval.passage",
        },
        "output": {"uri": str(tmp_path / "out"), "single": {"dim": 32}, "multi": {}},
        "compute": {"token_budget": 4096},
    }
    path.write_text(yaml.safe_dump(described))
    return path


@pytest.fixture
def night(spec: Path, capsys: pytest.CaptureFixture[str]) -> Night:
    """Runs a night that ends with an exit code, and returns what it said."""

    def run(*settings: str, code: int = 0, allow_empty: bool = False) -> str:
        capsys.readouterr()
        more = [part for setting in settings for part in ("--set", setting)]
        more += ["--allow-empty"] * allow_empty
        found = main(["nightly", str(spec), "--address", "none", *more])
        said = capsys.readouterr()
        assert found == code, said.err
        return said.err if code else said.out

    return run


def _out(spec: Path) -> str:
    return str(spec.parent / "out")


def _readers(spec: Path) -> tuple[int, int]:
    """What readers get: the version, and how many rows."""
    dataset = open_dataset(_out(spec))
    return dataset.version, dataset.count()


def _refused(spec: Path, version: int) -> list[str]:
    return read_entry(Folder(_out(spec)), version).refused


def _more(source: Path) -> None:
    """Forty new rows."""
    start = _SHARDS * _ROWS
    _write(source / "new.parquet", range(start, start + 40))


def test_a_source_cut_in_half_is_a_candidate_until_it_is_whole_or_somebody_says_so(
    night: Night, spec: Path, source: Path
) -> None:
    night()
    kept = {name: (source / name).read_bytes() for name in ("2.parquet", "3.parquet")}
    for name in kept:
        (source / name).unlink()
    told = night(code=1)
    assert "nightjar: version 2 is a candidate, and readers get version 1:" in told
    assert "gate.shrink: 0.2, and it has 120 rows, 50.0% fewer than the 240 of version 1" in told
    assert f"`nightjar publish {_out(spec)} 2`" in told
    assert _readers(spec) == (1, 240)
    assert open_dataset(_out(spec), 2).count() == 120
    assert "version 2 is a candidate" in night(code=1), "it is told again, and nothing is done"
    assert _readers(spec) == (1, 240)
    for name, data in kept.items():
        (source / name).write_bytes(data)
    assert "0 rows embedded" in night()
    assert _readers(spec) == (3, 240)
    for name in kept:
        (source / name).unlink()
    night(code=1)
    assert main(["publish", _out(spec), "4"]) == 0
    assert _readers(spec) == (4, 120)
    night()


def test_a_source_that_has_more_than_doubled_is_a_candidate(
    night: Night, spec: Path, source: Path
) -> None:
    night()
    _write(source / "new.parquet", range(1000, 1300))
    assert "gate.growth: 1, and it has 540 rows, 125.0% more" in night(code=1)
    night(code=1)
    assert list_versions(Folder(_out(spec))) == [1, 2], "the same verdict is no news"
    night("nightly.gate.growth=null")
    assert _readers(spec) == (3, 540)


@pytest.mark.parametrize("gone", ["no shard", "no row"])
def test_an_empty_source_wipes_nothing_unless_that_is_allowed(
    night: Night, spec: Path, source: Path, gone: str
) -> None:
    night()
    for shard in source.iterdir():
        shard.unlink()
    if gone == "no row":
        _write(source / "0.parquet", range(0))
    told = night(code=2)
    assert "`nightjar nightly --allow-empty` deletes its rows" in told
    assert _readers(spec) == (1, 240)
    assert "nothing would" not in night("nightly.on_gone=keep", code=2)
    told = night("nightly.on_gone=keep", code=2, allow_empty=True)
    assert "nightly.on_gone is keep, so no row would be deleted anyway" in told
    night(allow_empty=True)
    assert _readers(spec) == (2, 0)
    _write(source / "0.parquet", range(10))
    night()
    assert _readers(spec) == (3, 10)


def test_one_of_several_sources_that_is_gone_is_refused_too(
    night: Night, source: Path, spec: Path
) -> None:
    two = f"source.uri=[{source}/0.parquet,{source}/1.parquet]"
    night(two)
    (source / "1.parquet").unlink()
    assert "1.parquet" in night(two, code=2)


def _rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the projector be another one."""
    original = engines.multi_vectors
    turn = torch.linalg.qr(torch.randn(128, 128, generator=torch.Generator().manual_seed(1)))[0]

    def other(*arguments: Any, **named: Any) -> Tensor:
        return original(*arguments, **named) @ turn

    monkeypatch.setattr(engines, "multi_vectors", other)


def _swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another adapter be merged than the one that is asked for."""
    original = Engine.switch
    monkeypatch.setattr(Engine, "switch", lambda engine, adapter: original(engine, "code"))


def _changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    original = Engine.embed

    def embed(engine: Engine, *arguments: Any, **named: Any) -> Embeddings:
        found = original(engine, *arguments, **named)
        for vectors in [*found.singles.values(), *(found.multi or [])]:
            if len(vectors):
                change(vectors)
        return found

    monkeypatch.setattr(Engine, "embed", embed)


def _not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    _changed(monkeypatch, lambda vectors: vectors.fill(np.nan))


def _collapsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all vectors be nearly one."""
    noise = np.random.default_rng(0)

    def change(vectors: Any) -> None:
        vectors[:] = 1
        vectors += noise.normal(0, 1e-3, vectors.shape)
        vectors /= np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True)

    _changed(monkeypatch, change)


_FAULTS = {
    "an actor that makes NaN": (_not_finite, "limits.quarantine_share: 0.01, but"),
    "another adapter": (_swapped, "gate.shift: 0.5, and the new embedding vectors of text of"),
    "another projector": (_rotated, "gate.shift: 0.5, and the new multivector vectors of text of"),
    "a collapsed model": (_collapsed, "gate.near_identical: 0.2, and"),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_worker_that_computes_something_else_is_stopped_by_the_canaries(
    night: Night, spec: Path, source: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    night()
    _more(source)
    with monkeypatch.context() as patch:
        _FAULTS[fault][0](patch)
        told = night(code=1)
    assert "vectors of the canary" in told
    assert "nothing was committed" in told
    assert _readers(spec) == (1, 240)
    assert "40 rows embedded" in night(), "nothing of what it made was kept"
    assert _readers(spec) == (2, 280)


@pytest.mark.usefixtures("without_canaries")
@pytest.mark.parametrize("fault", _FAULTS)
def test_what_the_canaries_would_miss_is_a_candidate_and_can_be_discarded(
    night: Night, spec: Path, source: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    night()
    _more(source)
    break_it, expected = _FAULTS[fault]
    with monkeypatch.context() as patch:
        break_it(patch)
        assert expected in night(code=1)
    assert _readers(spec) == (1, 240)
    assert len(_refused(spec, 2)) >= 1
    _write(source / "one.parquet", range(5000, 5001))
    assert expected in night(code=1), "its vectors are not carried past the gate"
    assert main(["rollback", _out(spec), "1"]) == 0
    assert "41 rows embedded" in night()
    assert _readers(spec)[1] == 281


@pytest.mark.usefixtures("without_canaries")
def test_vectors_of_a_refused_candidate_are_looked_at_also_as_targets_of_links(
    night: Night, spec: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night()
    _more(source)
    with monkeypatch.context() as patch:
        _collapsed(patch)
        night(code=1)
    start = _SHARDS * _ROWS
    # units of another shard: what was embedded is linked to, and not embedded
    _write(source / "new.parquet", range(start, start + 41))
    assert "gate.near_identical: 0.2, and" in night(code=1)
    assert _readers(spec) == (1, 240)


@pytest.mark.usefixtures("without_canaries")
def test_no_other_command_gives_readers_what_the_gate_has_refused(
    night: Night, spec: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night()
    _more(source)
    with monkeypatch.context() as patch:
        _collapsed(patch)
        night(code=1)
    assert main(["embed", str(spec), "--address", "none"]) == 1
    assert _readers(spec) == (1, 240)
    _write(source / "one.parquet", range(5000, 5001))
    assert main(["embed", str(spec), "--address", "none"]) == 1
    assert _readers(spec) == (1, 240)


@pytest.mark.usefixtures("without_canaries")
def test_a_refused_candidate_of_a_new_generation_can_be_discarded(
    night: Night, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night()
    other = "model.max_length=64"
    with monkeypatch.context() as patch:
        _collapsed(patch)
        assert "near_identical" in night(other, code=1)
    assert "near_identical" in night(other, code=1)
    assert main(["rollback", _out(spec), "1"]) == 0
    assert "240 rows embedded" in night(other)
    assert _readers(spec)[1] == 240


@pytest.mark.usefixtures("without_canaries")
def test_a_first_snapshot_that_was_refused_can_be_discarded(
    night: Night, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _collapsed(patch)
        assert f"`nightjar rollback {_out(spec)} 0` discards it" in night(code=1)
    assert main(["rollback", _out(spec), "0"]) == 0
    assert "240 rows embedded" in night()
    assert _readers(spec)[1] == 240


def test_a_candidate_that_waits_is_discarded_or_published_by_the_next_night_that_may(
    night: Night, spec: Path, source: Path
) -> None:
    night()
    _more(source)
    manual = "nightly.publish=manual"
    night(manual)
    assert "up to date" in night(manual), "it still waits"
    assert main(["rollback", _out(spec), "1"]) == 0
    assert "40 rows embedded" in night(manual), "it was discarded, and is made anew"
    assert _readers(spec) == (1, 240)
    night()
    assert _readers(spec)[1] == 280


def test_a_night_of_few_new_rows_reads_no_vector_of_the_snapshot_before(
    night: Night, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night()
    looked_at: list[str] = []
    original = evidence.look_at

    def noted(schema: pa.Schema, folder: Folder, look: evidence.Look) -> evidence.Seen:
        looked_at.append(look.part.file.path)
        return original(schema, folder, look)

    monkeypatch.setattr("jobs.nightly.look_at", noted)
    _write(source / "one.parquet", range(5000, 5001))
    night()
    assert len(looked_at) == 1
    _write(source / "more.parquet", range(6000, 6040))
    night()
    assert len(looked_at) > 2


def test_queries_none_of_whose_documents_are_there_are_no_measure(
    night: Night, source: Path, spec: Path
) -> None:
    queries = source.parent / "queries.jsonl"
    queries.write_text(json.dumps({"query": "an owl", "relevant": ["mistyped"]}))
    asked = f"nightly.gate.queries={queries}"
    assert "100.0% have no document in it; the ids may be mistyped" in night(asked, code=1)
    assert main(["rollback", _out(spec), "0"]) == 0
    night()
    for shard in source.iterdir():
        shard.unlink()
    night(asked, allow_empty=True)


def test_what_is_not_sound_in_the_store_is_refused(
    night: Night, spec: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night()
    _more(source)
    monkeypatch.setattr("pipeline.stages.embed.unsound", lambda found: [])
    monkeypatch.setattr("pipeline.stages.canaries.Canaries.before", lambda *_: None)
    monkeypatch.setattr("pipeline.stages.canaries.Canaries.after", lambda *_: None)
    _changed(monkeypatch, lambda vectors: vectors[:1].fill(np.nan))
    told = night(code=1)
    assert "of 40 new rows have a vector that is not finite" in told
    assert _readers(spec) == (1, 240)


def test_a_first_snapshot_that_is_refused_is_read_by_nobody_who_does_not_ask_for_it(
    night: Night, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night("limits.quarantine_share=0", "nightly.gate.near_identical=0")
    assert _readers(spec) == (1, 240)
    out = f"{_out(spec)}2"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.nightly.gate.near_identical", lambda *_: 0.5)
        assert "and readers get none" in night(f"output.uri={out}", code=1)
    with pytest.raises(OutputError, match="nothing is published yet; version 1 is a candidate"):
        open_dataset(out)
    assert open_dataset(out, 1).count() == 240
    capsys.readouterr()
    assert main(["versions", out]) == 0
    listed = capsys.readouterr().out
    assert "candidate: 240 rows" in listed
    assert "refused: nightly.gate.near_identical: 0.2, and 50.0%" in listed
    assert main(["tag", out, "golden"]) == 2
    assert main(["gc", out, "--delete"]) == 0
    assert main(["publish", out, "1"]) == 0
    assert open_dataset(out).count() == 240


def test_a_night_that_is_published_by_hand_goes_on_from_its_own_candidates(
    night: Night, spec: Path, source: Path
) -> None:
    night()
    manual = "nightly.publish=manual"
    _more(source)
    told = night(manual)
    assert (
        f"version 2 is a candidate, and readers get another: `nightjar publish {_out(spec)} 2`"
        in told
    )
    assert f"show {_out(spec)} --version 2" in told
    assert _readers(spec) == (1, 240)
    _write(source / "one.parquet", range(5000, 5001))
    assert "1 new, 0 changed, 0 updated, 0 gone, 280 carried; 1 rows embedded" in night(manual)
    assert _readers(spec) == (1, 240)
    assert main(["publish", _out(spec), "3"]) == 0
    assert _readers(spec) == (3, 281)


def _write_queries(path: Path, rows: range) -> None:
    """Every row's own text finds it."""
    lines = [{"query": _text(row), "relevant": [row], "task": "text-matching"} for row in rows]
    path.write_text("\n".join(map(json.dumps, lines)))


def test_queries_that_find_their_documents_worse_are_a_reason(
    night: Night, spec: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = source.parent / "queries.jsonl"
    _write_queries(queries, range(180, 200))
    asked = (f"nightly.gate.queries={queries}", "source.task=text-matching")
    night(*asked)
    measured = read_entry(Folder(_out(spec)), 1).quality
    assert (measured["ndcg@10"], measured["recall@10"]) == (1.0, 1.0)
    # the texts of other rows: their own queries do not find them any more
    pq.write_table(
        pa.table({"doc": list(range(180, 240)), "body": [_text(7000 + n) for n in range(60)]}),
        source / "3.parquet",
    )
    told = night(*asked, code=1)
    assert "nightly.gate.quality_drop: 0.02, and the ndcg@10 of the queries is" in told
    assert _readers(spec) == (1, 240)
    night(*asked, "nightly.gate.quality_drop=1")
    assert _readers(spec) == (3, 240)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "has no queries"),
        ('{"query": "a"}', "line 1 is not"),
        ("[]", "line 1 is not"),
        ('{"query": " ", "relevant": [1]}', "line 1: the query is empty"),
        ('{"query": "a", "relevant": []}', "nothing is relevant"),
        ('{"query": "a", "relevant": {"b": 0}}', "a grade that is not above 0"),
        ('{"query": "a", "relevant": {"b": NaN}}', "a grade that is not above 0"),
        ('{"query": "a", "relevant": "doc-7"}', "neither a list nor an object"),
        ('{"query": "a", "relevant": [1], "task": "chat"}', "'chat' is not a task"),
        (r'{"query": "\ud800", "relevant": [1]}', "is not Unicode"),
    ],
)
def test_a_query_set_that_is_none_is_the_users_mistake(
    night: Night, source: Path, line: str, expected: str
) -> None:
    queries = source.parent / "queries.jsonl"
    queries.write_text(line)
    told = night(f"nightly.gate.queries={queries}", code=2)
    assert f"nightjar: nightly.gate.queries: '{queries}'" in told
    assert expected in told
    assert "is not there" in night("nightly.gate.queries=/nowhere.jsonl", code=2)
    assert "output.single is null" in night(
        f"nightly.gate.queries={queries}", "output.single=null", code=2
    )


def test_twenty_ordinary_nights_are_all_given_to_readers(
    night: Night, spec: Path, source: Path
) -> None:
    chosen, rows, following = random.Random(5), {n: list(range(n * 60, n * 60 + 60)) for n in
                                                range(_SHARDS)}, 10_000  # fmt: skip
    queries = source.parent / "queries.jsonl"
    _write_queries(queries, range(0, 240, 12))
    asked = (f"nightly.gate.queries={queries}", "source.task=text-matching")
    night(*asked)
    for evening in range(20):
        for shard in chosen.sample(range(_SHARDS), 2):
            for _ in range(chosen.randint(0, 25)):
                rows[shard].append(following)
                following += 1
            for _ in range(chosen.randint(0, 10)):
                rows[shard].remove(chosen.choice(rows[shard]))
            table = pa.table({"doc": rows[shard], "body": [_text(row) for row in rows[shard]]})
            pq.write_table(table, source / f"{shard}.parquet")
        night(*asked)
        there = sorted(row for shard in rows.values() for row in shard)
        assert open_dataset(_out(spec)).to_table(["id"])["id"].to_pylist() != []
        assert _readers(spec) == (evening + 2, len(there))
