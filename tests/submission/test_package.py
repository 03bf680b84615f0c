"""What is sent to a cluster."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.job_file import located
from pipeline.spec import JobSpec
from pipeline.spec_file import load_spec
from pipeline.submission.package import SPEC, digest, packaged
from tests.jobs import write_parquet, write_spec


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    monkeypatch.chdir(tmp_path)
    write_parquet(Path("docs.parquet"))
    source = {"uri": "docs.parquet", "format": "parquet", "id": "doc", "text": "body"}
    path = write_spec(Path("."), "owner/name", {**source, "task": "code.query"}, {"uri": "out"})
    return load_spec(path, ["compute.unit_rows=7"])


def test_the_spec_is_sent_with_its_overrides_and_whole_paths_and_nothing_else(
    spec: JobSpec, tmp_path: Path
) -> None:
    with packaged(located(spec), code=False) as folder:
        assert [path.name for path in folder.iterdir()] == [SPEC]
        sent = load_spec(folder / SPEC)
    assert sent == located(spec)
    assert sent.compute.unit_rows == 7
    assert sent.sources[0].uris == (str(tmp_path / "docs.parquet"),)
    assert (sent.output.uri, sent.model.path) == (str(tmp_path / "out"), "owner/name")
    assert not folder.exists()


def test_the_code_that_is_sent_runs_and_knows_its_version(spec: JobSpec) -> None:
    with packaged(spec, code=True) as folder:
        sent = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert sent == {".py", ".yaml", ""}, "no file that lies about is taken along"
        program = "import jobs.cli, pipeline.software as s; print(jobs.cli.__file__, s.unmet())"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{folder / 'jobs' / 'cli.py'} []\n"


def test_packages_are_told_apart_by_all_that_is_sent_and_run(spec: JobSpec) -> None:
    digests = []
    other = spec.model_copy(update={"name": "other"})
    for sent, code, command in (
        (spec, False, "embed spec.yaml"),
        (spec, False, "embed spec.yaml"),
        (spec, False, "nightly spec.yaml"),
        (other, False, "embed spec.yaml"),
        (spec, True, "embed spec.yaml"),
    ):
        with packaged(sent, code=code) as folder:
            digests.append(digest(folder, command))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    with packaged(spec, code=True) as folder:
        (folder / "pipeline" / "log.py").write_text("changed = True\n")
        assert digest(folder, "embed spec.yaml") not in digests
