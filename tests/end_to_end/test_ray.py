"""The whole flow on real Ray clusters, against the same corpus embedded in one process."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.cli import main
from pipeline import open_dataset
from pipeline.dataset import Dataset
from pipeline.stages.canaries import CANARIES
from tests.end_to_end.clusters import Cluster, Finished, nightjar
from tests.end_to_end.small_corpus import PAIRED, REASONS, ROWS

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

FRACTIONS = "compute.pools={%s}" % ", ".join(  # noqa: UP031  braces of YAML all over it
    f"{name}: {{max: 1, cpus: 0.25}}" for name in ("retrieval", "code", "text-matching")
)


def test_pools_of_their_own_give_the_vectors_of_one_process_without_rays_noise(
    spec: Path, expected: Dataset
) -> None:
    done = nightjar("embed", spec, "--set", FRACTIONS, "--json")
    assert done.code == 0, done.err
    first, *lines = done.err.splitlines()
    assert first.startswith("pools: ")
    assert all(f"{name} with 1 actor" in first for name in ("retrieval", "code"))
    counts = [line for line in lines if ": model loaded in " not in line]
    assert len(counts) < len(lines)
    assert all(" rows (" in line and line.endswith("s left") for line in counts)
    _demand_equal(_dataset(spec), expected)
    _demand_every_row_once(done)


def test_one_cpu_is_enough_for_three_adapters(
    spec: Path, cluster: Cluster, expected: Dataset
) -> None:
    done = nightjar("embed", spec, "--address", cluster.address, "--json")
    assert done.code == 0, done.err
    assert "switch between" in done.err
    _demand_equal(_dataset(spec), expected)
    _demand_every_row_once(done)


def test_several_raylets_share_the_work(spec: Path, two_nodes: Cluster, expected: Dataset) -> None:
    # 1.5 CPUs of actors: more than one node has
    wanted = (
        "compute.pools={retrieval: {min: 2, cpus: 0.5}, code: {cpus: 0.25}, "
        "text-matching: {max: 1, cpus: 0.25}}"
    )
    done = nightjar("embed", spec, "--address", two_nodes.address, "--set", wanted, "--json")
    assert done.code == 0, done.err
    assert "retrieval with 2 actors of 0.5 CPU" in done.err
    _demand_equal(_dataset(spec), expected)
    _demand_every_row_once(done)


def test_nights_by_rays_client_and_without_embed_once_and_then_link_and_delete(
    spec: Path, cluster: Cluster, expected: Dataset
) -> None:
    done = nightjar("nightly", spec, "--address", cluster.client_address, "--json")
    assert done.code == 0, done.err
    _demand_equal(_dataset(spec), expected)
    _demand_every_row_once(done)
    # a shard is gone, and the rows of another are told without a column
    less = ("--set", "source.0.uri=" + _first_shard(spec), "--set", "source.0.keep=[]")
    less += ("--set", "nightly.gate.shrink=null")
    done = nightjar("nightly", spec, "--address", cluster.address, "--json", *less)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["tokens"] == report["resumed_tokens"]
    assert report["found"]["gone"] == report["found"]["updated"] > 0
    found = _rows_of(_dataset(spec))
    before = {(r["id"], r["modality"]): r["embedding"] for r in _rows_of(expected)}
    assert len(found) == len(before) - report["found"]["gone"]
    for row in found:
        vector = before[row["id"], row["modality"]]
        assert np.allclose(row["embedding"], vector, atol=1e-6)


def test_an_actor_that_computes_something_else_is_named_and_nothing_is_committed(
    spec: Path, cluster: Cluster
) -> None:
    first = ("--set", "source.0.uri=" + _first_shard(spec), "--set", "source.0.keep=[]")
    more = ("--set", "nightly.gate.growth=null")
    assert main(["nightly", str(spec), "--address", "none", *first, *more]) == 0
    # as if another host had made them
    for stored in (spec.parent / "out" / CANARIES).glob("*/retrieval-*.arrow"):
        with pa.ipc.open_file(stored.read_bytes()) as file:
            table = file.read_all()
        turned = [values[::-1] for values in table["values"].to_pylist()]
        table = table.set_column(3, table.schema.field(3), pa.array(turned, table.schema.types[3]))
        with pa.ipc.new_file(str(stored), table.schema) as writer:
            writer.write_table(table)
    done = nightjar("nightly", spec, "--address", cluster.address, *more)
    assert done.code == 1, done.out
    assert re.search(
        r"vectors of the canary '\w+', adapter retrieval, are .* from what they were .*: actor "
        r"[0-9a-f]{8,}, process \d+ on host .*, \w+ CPU with .*, does not compute what others did; "
        r"nothing was committed",
        done.err,
    )
    assert _dataset(spec).version == 1


def _rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dataset.to_table(["id", "modality", "embedding"]).to_pylist()
    return rows


@pytest.mark.fault("file.corrupt")
def test_a_shard_damaged_behind_its_footer_fails_the_run_in_one_sentence(
    spec: Path, tmp_path: Path, cluster: Cluster
) -> None:
    shard = tmp_path / "damaged.parquet"
    table = pa.table({"doc": ["a", "b"], "body": ["x" * 4000, "y"], "task": ["code.query"] * 2})
    table = table.append_column("page", pa.nulls(2, pa.binary()))
    pq.write_table(table.append_column("title", pa.array(["t", "t"])), shard, compression="none")
    content = bytearray(shard.read_bytes())
    content[8:200] = b"\xff" * 192
    shard.write_bytes(content)
    # ids are not read ahead: the workers find it
    changed = ("--set", f"source.0.uri={shard}", "--set", "limits.duplicate_ids=keep")
    done = nightjar("embed", spec, "--address", cluster.address, *changed)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert not (tmp_path / "out" / "log").exists()


def test_a_device_of_a_cluster_can_be_measured(
    tiny_checkpoint: Path, tmp_path: Path, cluster: Cluster
) -> None:
    done = nightjar(
        "benchmark",
        tiny_checkpoint,
        *("--address", cluster.address, "--seconds", "0.05", "--output", tmp_path),
    )
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["device"].endswith("CPU with 1 thread"), "as many as the node has"
    assert len(found["mixes"]) == 5
    assert "pages of 672 x 868 pixels" in done.out


@pytest.mark.fault("compute.wrong_cluster")
def test_an_address_where_nobody_listens_is_refused_at_once(spec: Path) -> None:
    done = nightjar("embed", spec, "--address", "127.0.0.1:9")
    assert done.code == 1
    assert "no Ray answers at '127.0.0.1:9'" in done.err


def _dataset(spec: Path) -> Dataset:
    return open_dataset(yaml.safe_load(spec.read_text())["output"]["uri"])


def _first_shard(spec: Path) -> str:
    uri: str = yaml.safe_load(spec.read_text())["source"][0]["uri"]
    return uri.replace("*", "part-0")


def _demand_every_row_once(done: Finished) -> None:
    report = json.loads(done.out)
    assert report["rows"] == ROWS
    assert report["items"] == ROWS + PAIRED
    assert report["quarantined"] == REASONS
    assert sum(report["embedded"].values()) == ROWS + PAIRED - sum(REASONS.values())


def _demand_equal(found: Dataset, expected: Dataset) -> None:
    columns = ["id", "modality", "task", "title", "n_tokens", "truncated", "source_hash"]
    keys = [("id", "ascending"), ("modality", "ascending")]
    ours, theirs = (dataset.to_table().sort_by(keys) for dataset in (found, expected))
    assert ours.select(columns).equals(theirs.select(columns))
    for name, tolerance in (("embedding", 1e-6), ("multivector", 1e-3)):
        assert ours.schema.field(name).type == theirs.schema.field(name).type
        one, other = (_numbers(table[name].combine_chunks()) for table in (ours, theirs))
        assert np.abs(one - other).max() < tolerance
    rejected, wanted = (
        dataset.quarantine().drop_columns(["message"]).sort_by([("locator", "ascending")])
        for dataset in (found, expected)
    )
    assert rejected.equals(wanted)
    # one unit, one file: no unit was split, merged or written twice
    assert len(found.fragments) == len(expected.fragments)


def _numbers(vectors: pa.Array) -> np.ndarray:
    while isinstance(vectors, pa.ListArray | pa.FixedSizeListArray):
        vectors = vectors.flatten()
    return vectors.to_numpy(zero_copy_only=False).astype(np.float32)
