"""Jobs submitted to a real cluster of two raylets that asks for a token, through Ray's Jobs API."""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import yaml

from pipeline import open_dataset
from pipeline.dataset import Dataset
from pipeline.folder import Folder
from pipeline.runs import Ending, list_runs
from tests.end_to_end.clusters import (
    ENVIRONMENT,
    Cluster,
    Finished,
    nightjar,
    running_cluster,
    wait_until,
)
from tests.jobs import write_parquet
from tests.jobs import write_spec as job

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

_MANY = 1200
"""Rows of a job that takes a while."""
_SECRET = "gQ7vXq-canary-2wLrT9zKd"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Of everybody who knows the token."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(secrets.token_hex(32))
    return {
        **ENVIRONMENT,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        # whose `python` a job is run by, as in an image
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


@pytest.fixture(scope="module")
def guarded(
    environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster of two raylets with a Jobs API; the second one lacks a secret that the head has."""
    head = {**environment, "STORE_KEY": "testing", "STORE_SECRET": _SECRET}
    logs = tmp_path_factory.mktemp("ray")
    with running_cluster(logs, environment=head, dashboard=True) as cluster:
        cluster.add_node(among=environment)
        yield cluster


@pytest.fixture
def command(guarded: Cluster, environment: Mapping[str, str]) -> "Command":
    """`nightjar`, with the token, told the address of the cluster."""
    return Command(guarded.dashboard, environment)


class Command:
    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        self.url = url
        self.environment = environment

    def __call__(self, name: str, *arguments: str | Path) -> Finished:
        more = ("--address", self.url)
        return nightjar(name, *arguments, *more, environment=self.environment)

    def begun(self, spec: Path, *arguments: str) -> str:
        """Submit a job and leave it; its id."""
        done = self("submit", spec, "--detach", *arguments)
        assert done.code == 0, done.err
        assert "checked: 2 nodes can read the source" in done.out
        return self.newest()

    def newest(self) -> str:
        """The id of the job that was submitted last."""
        listed = self("jobs", "--last", "1")
        assert listed.code == 0, listed.err
        return listed.out.split()[0]


def test_a_submitted_spec_gives_the_bytes_that_the_laptop_gives(
    spec: Path, command: Command, expected: Dataset
) -> None:
    done = command("submit", spec)
    assert done.code == 0, done.err
    assert "60 rows embedded" in done.out
    assert "62 of 62 rows (code 16 of 16, " in done.err
    found, wanted = (_in_order(d) for d in (open_dataset(str(spec.parent / "out")), expected))
    assert found.equals(wanted)
    listed = command("jobs", "--last", "1")
    assert "  succeeded, " in listed.out
    assert f"embed to {spec.parent / 'out'}" in listed.out
    said = command("logs", command.newest())
    assert said.code == 0
    assert "60 rows embedded" in said.out


def test_the_cluster_runs_the_code_that_is_sent_or_its_own(
    spec: Path, command: Command, tmp_path: Path
) -> None:
    for name in ("pipeline", "jobs"):
        shutil.copytree(name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = tmp_path / "jobs" / "submitted.py"
    code.write_text(f"print('edited')\n{code.read_text()}")
    known = {**command.environment, "PYTHONPATH": str(tmp_path)}
    for package, is_edited in (("project", True), ("image", False)):
        done = nightjar(
            *("submit", spec, "--address", command.url, "--package", package, "--json"),
            environment=known,
            directory=tmp_path,
        )
        assert done.code == 0, done.err
        # the second one finds what the first has written
        assert json.loads(done.out)["up_to_date"] is not is_edited
        assert ("edited\n" in done.err) is is_edited


def _in_order(dataset: Dataset) -> pa.Table:
    table = dataset.to_table(["id", "modality", "task", "embedding", "multivector"])
    keys = [(name, "ascending") for name in ("id", "modality", "task")]
    return table.sort_by(keys).combine_chunks()


def test_whoever_has_no_token_is_told_how_to_name_one(spec: Path, guarded: Cluster) -> None:
    for name, *arguments in (("submit", spec), ("jobs",), ("stop", "some-job")):
        done = nightjar(name, *arguments, "--address", guarded.dashboard)
        assert done.code == 2
        assert "asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or" in done.err
        assert "Traceback" not in done.err


def test_a_mistake_of_the_cluster_or_the_spec_is_one_sentence(
    spec: Path, command: Command, tmp_path: Path
) -> None:
    gpus = command("submit", spec, "--set", "compute.pools={code: {gpus: 1}}")
    assert gpus.code == 2
    assert "compute.pools.code.gpus: 1, but the cluster has 0 GPUs" in gpus.out
    unknown = command("logs", "nobody")
    assert unknown.code == 2
    assert "knows no job 'nobody'; `nightjar jobs --address" in unknown.err
    option = command("submit", spec, "--beside")
    assert option.code == 2
    assert "--beside: is of backfill, and this spec is of embed; leave it out" in option.err
    # nobody listens there
    away = nightjar("jobs", "--address", "http://127.0.0.1:9", environment=command.environment)
    assert away.code == 1
    assert "no Ray answers at 'http://127.0.0.1:9'" in away.err
    for done in (gpus, unknown, option, away):
        assert "Traceback" not in done.out + done.err


def test_software_that_does_not_fit_is_refused_before_anything_is_embedded(
    spec: Path, command: Command, tmp_path: Path
) -> None:
    # what this very cluster has is what the version that is asked for does not fit
    for needed, where, sentence in (
        ("Requires-Dist: ray>=99", "err", "runs Ray 2.60.0, and Nightjar needs ray>=99 there"),
        ("Requires-Python: >=3.99", "out", "Nightjar needs python>=3.99, and here is 3."),
        ("Requires-Dist: torch>=99", "out", "Nightjar needs torch>=99, and here is 2."),
    ):
        about = tmp_path / needed.split(":")[1].strip("= >9.") / "nightjar-9.dist-info"
        about.mkdir(parents=True)
        ray = "" if "ray" in needed else "Requires-Dist: ray>=2.60\n"
        about.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.4\nName: nightjar\nVersion: 9\n{ray}{needed}\n"
        )
        known = {"PYTHONPATH": f"{about.parent}{os.pathsep}{Path.cwd()}"}
        done = nightjar(
            *("submit", spec, "--address", command.url),
            environment={**command.environment, **known},
            directory=tmp_path,
        )
        assert done.code == 2, done.out
        assert sentence in getattr(done, where)
        assert not (spec.parent / "out").exists()


def test_a_node_that_lacks_a_secret_is_named_and_the_secret_is_told_nobody(
    bucket: str, s3_endpoint: str, command: Command, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    spec = job(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "docs.parquet"))
    plain = yaml.safe_load(spec.read_text())
    store = {"uri": bucket, "endpoint": s3_endpoint, "region": "us-east-1", "path_style": True}
    plain["output"]["uri"] = f"{bucket}/out"
    written = {**store, "key": "env:STORE_KEY", "secret": _SECRET}
    spec.write_text(yaml.safe_dump({**plain, "storage": [written]}))
    refused = command("submit", spec)
    assert refused.code == 2
    assert "storage.0.secret: expected env:NAME or file:PATH, which name a secret" in refused.err
    named = {**store, "key": "env:STORE_KEY", "secret": "env:STORE_SECRET"}
    spec.write_text(yaml.safe_dump({**plain, "storage": [named]}))
    knowing = {**command.environment, "STORE_KEY": "testing", "STORE_SECRET": _SECRET}
    done = Command(command.url, knowing)("submit", spec)
    assert done.code == 2, done.err
    assert re.search(
        r"node [\d.]+: storage: env:STORE_\w+ names a variable that the environment of this "
        r"process has not; nothing was embedded",
        done.out,
    )
    client = requests.get(
        f"{command.url}/api/jobs/",
        headers={"Authorization": f"Bearer {Path(knowing['RAY_AUTH_TOKEN_PATH']).read_text()}"},
        timeout=30,
    )
    assert client.ok
    for told in (refused.out, refused.err, done.out, done.err, client.text):
        assert _SECRET not in told


@pytest.fixture
def long_spec(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A job of 300 units that takes a while."""
    texts = [f"document {n} " + "of some words " * 30 for n in range(_MANY)]
    path = tmp_path / "many.parquet"
    pq.write_table(pa.table({"doc": range(_MANY), "body": texts}), path)
    source = {"uri": str(path), "format": "parquet", "id": "doc", "text": "body"}
    return job(tmp_path, tiny_checkpoint, {**source, "task": "retrieval.passage"})


def test_a_job_that_is_stopped_leaves_its_account_and_is_gone_on_with(
    long_spec: Path, command: Command
) -> None:
    small = ("--set", "compute.unit_rows=4")
    id, out = command.begun(long_spec, *small), long_spec.parent / "out"
    wait_until(lambda: len(list(out.glob("data/*/*.arrow"))) > 5, "some units")
    other = command("submit", long_spec, "--set", "compute.unit_rows=8")
    assert other.code == 2
    assert f"is being written to by the job {id}; follow it with" in other.err
    # as a pod does that takes the place of one that followed it
    same = command("submit", long_spec, "--detach", *small)
    assert same.code == 0, same.err
    assert f"running already: {id}, on {command.url}" in same.err
    assert command.newest() == id
    left = _interrupted("logs", id, "--follow", "--address", command.url, among=command.environment)
    assert left.code == 1
    assert left.err.splitlines()[-1].startswith(f"nightjar: the job goes on; `nightjar logs {id}")
    assert "Traceback" not in left.err
    done = command("stop", id)
    assert done.code == 0, done.err
    assert f"{id} has been stopped; units that were done count" in done.out
    (run,) = list_runs(Folder(str(out)), 5)
    assert run.ending is Ending.INTERRUPTED
    assert not (out / "log").exists() or not list((out / "log").iterdir())
    assert command("stop", id).out == f"{id} has been stopped already\n"
    followed = command("logs", id, "--follow")
    assert followed.code == 1
    assert "interrupted; nothing was committed" in followed.out
    again = command("submit", long_spec, "--json", *small)
    assert again.code == 0, again.err
    report = json.loads(again.out)
    assert 0 < report["resumed_rows"] < report["rows"] == _MANY
    night = command("submit", long_spec, "--as", "nightly", *small)
    assert night.code == 0
    assert f"up to date: {_MANY:,} rows embedded before" in night.out


def _interrupted(*arguments: str, among: Mapping[str, str]) -> Finished:
    """A command at which somebody has typed Ctrl-C as soon as it said something."""
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=dict(among), **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    return Finished(code=process.returncode, out=out, err=err)


def test_a_backfill_and_an_evaluation_are_submitted_too(
    spec: Path, command: Command, tmp_path: Path, expected: Dataset, tiny_checkpoint: Path
) -> None:
    dataset = {"uri": expected.uri}
    store = {"kind": "lancedb", "url": "index", "collection": "small"}
    fill = tmp_path / "fill.yaml"
    fill.write_text(yaml.safe_dump({"dataset": dataset, "store": store}))
    done = command("submit", fill, "--set", f"store.url={tmp_path / 'index'}")
    assert done.code == 0, done.err
    assert "60 points of version 1" in done.out
    names = expected.to_table(["id", "task"]).to_pylist()
    known = next(row["id"] for row in names if row["task"] == "retrieval.passage")
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text(json.dumps({"_id": "q", "text": "a document in words"}) + "\n")
    qrels.write_text(f"query-id\tcorpus-id\tscore\nq\t{known}\t1\n")
    asked = tmp_path / "ask.yaml"
    plain = {"dataset": dataset, "queries": {"uri": str(queries)}, "qrels": str(qrels)}
    plain["model"] = {"path": str(tiny_checkpoint), "max_length": 64}
    asked.write_text(yaml.safe_dump(plain))
    nowhere = command("submit", asked)
    assert nowhere.code == 2
    assert "--out: say where the evaluation is to be written" in nowhere.err
    done = command("submit", asked, "--out", tmp_path / "found")
    assert done.code == 0, done.out
    assert "nDCG@10" in done.out
    assert (tmp_path / "found" / "evaluation.png").stat().st_size > 1000
