"""Rows that kill workers of a real cluster: found, set aside, and everything else embedded."""

import json
import os
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline import open_dataset
from tests.end_to_end.clusters import nightjar
from tests.jobs import write_parquet, write_spec

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

_POISON = Path(__file__).parent.parent / "faults" / "poison"
_ROWS, _UNIT = 6, 2
_HANGS = ["well", "ENDLESS", "well too", "and well"]
_KILLS_PREPARE, _ENDLESS, _KILLS_EMBED = 1, 3, 5


@pytest.mark.fault("image.decoder_crash", "image.slow", "compute.poison")
def test_a_unit_that_kills_its_worker_is_searched_for_the_rows_that_do_it(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"text number {row}" for row in range(_ROWS)]
    texts[_KILLS_PREPARE], texts[_ENDLESS] = "POISON", "ENDLESS"
    # longer than the spec's max_length: it is cut, and those the poisoned engine dies of
    texts[_KILLS_EMBED] = "a word after another " * 40
    pq.write_table(
        pa.table({"doc": pa.array(range(_ROWS)), "body": texts}), tmp_path / "docs.parquet"
    )
    source = {
        "uri": str(tmp_path / "docs.parquet"),
        "format": "parquet",
        "id": "doc",
        "text": "body",
        "task": "retrieval.passage",
    }
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    sliced = ("--set", f"compute.unit_rows={_UNIT}")
    # one actor, whose end ends every unit it holds
    pools = ("--set", "compute.pools={retrieval: {max: 1, cpus: 0.25}}")
    bounded = ("--set", "limits.decode_seconds=1")
    poisoned = {"PYTHONPATH": f"{_POISON}{os.pathsep}{Path.cwd()}"}
    done = nightjar("embed", spec, *sliced, *pools, *bounded, "--json", environment=poisoned)
    assert done.code == 0, done.err
    assert json.loads(done.out)["quarantined"] == {"decoder_crash": 2, "worker_crash": 1}
    dataset = open_dataset(str(tmp_path / "out"))
    aside = {row["id"]: row["reason"] for row in dataset.quarantine().to_pylist()}
    assert aside == {
        _KILLS_PREPARE: "decoder_crash",
        _ENDLESS: "decoder_crash",
        _KILLS_EMBED: "worker_crash",
    }
    _demand_the_vectors_of_one_process(tmp_path, spec, aside, sliced)
    # in an environment that does not kill, what was set aside is embedded, and nothing else
    assert main(["retry", str(tmp_path / "out"), "--address", "none"]) == 0
    assert "3 items tried again, 3 embedded" in capsys.readouterr().out
    _demand_the_vectors_of_one_process(tmp_path, spec, {}, sliced)


@pytest.mark.fault("compute.poison_shard")
def test_a_shard_that_kills_whoever_reads_it_ends_the_run_which_names_it(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    shard = tmp_path / "POISON.parquet"
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(shard))
    poisoned = {"PYTHONPATH": f"{_POISON}{os.pathsep}{Path.cwd()}"}
    done = nightjar("embed", spec, environment=poisoned)
    assert done.code == 1
    assert f"{shard}: 10 workers died at the stage source" in done.err.splitlines()[-1]
    assert not (tmp_path / "out/log").exists()


@pytest.mark.fault("compute.no_progress")
def test_a_worker_that_hangs_ends_the_run_which_says_who_holds_what(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "a.parquet", body=_HANGS))
    patient = ("--set", "limits.decode_seconds=10000", "--set", "limits.stall=15")
    poisoned = {"PYTHONPATH": f"{_POISON}{os.pathsep}{Path.cwd()}"}
    done = nightjar("embed", spec, *patient, environment=poisoned)
    assert done.code == 1
    assert "limits.stall: nothing has moved for 15 s" in done.err
    assert re.search(r"prepare \w{32}: held by process \d+ on [\d.]+ for 2\d s", done.err)
    assert re.search(r"(?s)pools want .* of 2 CPUs", done.err)
    assert not (tmp_path / "out/log").exists()


def _demand_the_vectors_of_one_process(
    tmp_path: Path, spec: Path, aside: Collection[int], sliced: tuple[str, str]
) -> None:
    elsewhere = ("--set", f"output.uri={tmp_path / 'healthy'}")
    assert main(["embed", str(spec), "--address", "none", *sliced, *elsewhere]) == 0
    clean = open_dataset(str(tmp_path / "healthy")).to_table().sort_by("id")
    kept = clean.filter(pa.compute.invert(pa.compute.is_in(clean["id"], pa.array(list(aside)))))
    found = open_dataset(str(tmp_path / "out")).to_table().sort_by("id")
    assert found["id"].to_pylist() == kept["id"].to_pylist()
    difference = np.stack(found["embedding"].to_numpy()) - np.stack(kept["embedding"].to_numpy())
    assert np.abs(difference).max() < 1e-5
