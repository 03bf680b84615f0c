"""The README is true: its commands run, its Python runs, its spec is valid, its tree exists.

`make quickstart` and `make test` cannot run inside the tests; the quickstart's own steps do, read
from the Makefile, without Ray to be cheap.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks import summary
from benchmarks.record import RESULTS
from jobs.cli import main
from pipeline.index.spec import BackfillSpec, EvaluateSpec
from pipeline.spec import JobSpec
from pipeline.spec_file import load_spec
from pipeline.stages.series import METRICS
from pipeline.training.spec import PairsSpec, TrainSpec

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
_KINDS = {"backfill": BackfillSpec, "evaluate": EvaluateSpec}
"""Of the shipped specs that are none of jobs."""


def _blocks(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [content for name, content in blocks if name == language]


def _commands() -> list[list[str]]:
    lines = "".join(_blocks("console")).splitlines()
    assert all(line.startswith("$ ") for line in lines)
    return [shlex.split(line.removeprefix("$ ")) for line in lines]


@pytest.fixture(scope="module")
def quickstarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which the quickstart's steps have run."""
    directory = tmp_path_factory.mktemp("quickstart")
    (directory / "configs").symlink_to(ROOT / "configs")
    planned = subprocess.run(
        ["make", "--dry-run", "--always-make", "quickstart"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    steps = [shlex.split(line)[1:] for line in planned.splitlines() if "bin/nightjar " in line]
    assert [step[0] for step in steps] == ["checkpoint", "corpus", "embed"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for step in steps:
            assert main([*step, "--address", "none"] if step[0] == "embed" else step) == 0
        yield directory


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_command_runs(
    quickstarted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(quickstarted)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command, *arguments in _commands():
        if command == "make":
            assert set(arguments) <= targets
            continue
        assert command == "nightjar"
        assert main(arguments) == 0, arguments
        assert capsys.readouterr().out


@pytest.mark.slow
def test_every_python_example_runs(
    quickstarted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(quickstarted)
    for example in _blocks("python"):
        exec(compile(example, "README.md", "exec"), {})
        assert capsys.readouterr().out


@pytest.mark.slow
def test_the_shipped_night_finds_the_quickstart_done(
    quickstarted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(quickstarted)
    assert main(["nightly", "configs/nightly.yaml", "--address", "none"]) == 0
    assert "up to date: " in capsys.readouterr().out


def test_the_example_of_a_backfill_is_valid_and_names_every_key(tmp_path: Path) -> None:
    _, example, _, _ = _blocks("yaml")
    (tmp_path / "spec.yaml").write_text(example)
    spec = load_spec(tmp_path / "spec.yaml", (), BackfillSpec)
    written = yaml.safe_load(example)
    assert set(written) == set(BackfillSpec.model_fields)
    assert set(written["dataset"]) == set(type(spec.dataset).model_fields)
    assert set(written["store"]) == set(type(spec.store).model_fields)
    assert set(written["store"]["feed"]) == set(type(spec.store.feed).model_fields)


def test_the_example_of_an_evaluation_is_valid_and_names_every_key(tmp_path: Path) -> None:
    _, _, example, _ = _blocks("yaml")
    (tmp_path / "spec.yaml").write_text(example)
    spec = load_spec(tmp_path / "spec.yaml", (), EvaluateSpec)
    written = yaml.safe_load(example)
    assert set(written) == set(EvaluateSpec.model_fields)
    for section in ("dataset", "queries", "multi"):
        assert set(written[section]) == set(type(getattr(spec, section)).model_fields)


def test_the_example_of_a_training_is_valid_and_names_every_key(tmp_path: Path) -> None:
    _, _, _, example = _blocks("yaml")
    (tmp_path / "spec.yaml").write_text(example)
    spec = load_spec(tmp_path / "spec.yaml", (), TrainSpec)
    written = yaml.safe_load(example)
    assert set(written) == set(TrainSpec.model_fields)
    assert set(written["pairs"][0]) == set(PairsSpec.model_fields)
    for section in ("adapter", "batch", "loss", "optimizer", "held_out", "compute", "output"):
        assert set(written[section]) == set(type(getattr(spec, section)).model_fields)


def test_the_example_spec_is_valid_and_names_every_key(tmp_path: Path) -> None:
    example, _, _, _ = _blocks("yaml")
    (tmp_path / "spec.yaml").write_text(example)
    spec = load_spec(tmp_path / "spec.yaml")
    assert isinstance(spec, JobSpec)
    written = yaml.safe_load(example)
    for section in ("model", "source", "output", "compute", "limits", "nightly"):
        fields = set(type(getattr(spec, section)).model_fields)
        assert set(written[section]) == fields


def test_every_shipped_config_is_valid() -> None:
    configs = sorted((ROOT / "configs").glob("*.yaml"))
    assert configs
    for config in configs:
        load_spec(config, (), _KINDS.get(config.stem, JobSpec))


def test_the_printed_tree_is_the_tree() -> None:
    (tree,) = (block for block in _blocks("") if block.startswith("Makefile"))
    folder, printed = "", set()
    for line in tree.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        printed.add(name if not line.startswith(" ") else folder + name)
    for path in printed:
        assert (ROOT / path).exists(), path
    modules = {
        str(path.relative_to(ROOT))
        for room in ("jobs", "pipeline")
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert modules <= printed, modules - printed


def test_the_tasks_table_is_the_vocabulary() -> None:
    from pipeline.tasks import TASKS

    for task in TASKS.values():
        assert f"| `{task.name}` | {task.adapter} | `{task.prefix}` |" in README


def test_the_table_of_metrics_is_what_is_exported() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| `")]
    written = [row for row in rows if " | counter | " in row or " | gauge | " in row]
    assert written == [
        f"| `{metric.exported.removeprefix('ray_nightjar_')}` | {metric.kind} | {metric.unit} "
        f"| {', '.join(metric.labels)} | {metric.meaning} |"
        for metric in METRICS
    ]


def test_the_table_of_speeds_says_what_was_measured() -> None:
    assert summary.table(RESULTS) in README
