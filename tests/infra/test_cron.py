"""The night as cron begins it: by sh, at home, with no terminal and hardly anything on the PATH."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import open_dataset
from tests.installed import demand_installed
from tests.jobs import write_parquet, write_spec

ROOT = Path(__file__).parents[2]
_MINUTE = "* * * * *"
_BEGINS_WITHIN = 120.0
_SECONDS = 150.0


@pytest.fixture
def project(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A checkout with a job of its own; its `nightjar` is the code under test."""
    project = tmp_path / "a checkout"
    shutil.copytree(ROOT / "infra/cron", project / "infra/cron")
    (project / "configs").mkdir()
    source = write_parquet(project / "a.parquet")
    written = write_spec(project, tiny_checkpoint, source | {"uri": "./a.parquet"})
    written.rename(project / "configs/nightly.yaml")
    _nightjar(project, f"PYTHONPATH='{ROOT}' exec '{sys.executable}' -m jobs.cli")
    return project


def _nightjar(project: Path, program: str) -> None:
    """Have the project's `nightjar` be a program."""
    command = project / ".venv/bin/nightjar"
    command.parent.mkdir(parents=True, exist_ok=True)
    # a real one would leave what a host remembers in the user's home
    command.write_text(f"#!/bin/sh\nexport HOME='{project}'\n{program} \"$@\"\n")
    command.chmod(0o755)


def _night(project: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """A night in the environment that cron gives."""
    return subprocess.run(
        ["/bin/sh", "-c", f"'{project}/infra/cron/night' configs/nightly.yaml {' '.join(more)}"],
        cwd="/",
        env={"HOME": "/", "LOGNAME": "nobody", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def _log(project: Path) -> str:
    return (project / "nightly.log").read_text()


@pytest.mark.slow
def test_a_night_is_committed_in_crons_bare_environment_and_only_the_log_says_so(
    project: Path,
) -> None:
    for said in ("; 4 rows embedded (4 text), ", "up to date: 4 rows embedded before"):
        done = _night(project, "--address", "none")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert said in _log(project), "and what was said before is still there"
    assert _log(project).count(" night: configs/nightly.yaml --address none\n") == 2
    assert open_dataset(str(project / "out")).count() == 4


def test_a_night_that_fails_is_told_to_cron_and_its_exit_code_kept(project: Path) -> None:
    _nightjar(project, "echo what an earlier night said; true")
    _night(project)
    (project / "a.parquet").unlink()
    _nightjar(project, f"PYTHONPATH='{ROOT}' exec '{sys.executable}' -m jobs.cli")
    done = _night(project, "--address", "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert " night: exit code 2\n" in done.stderr
    assert "nightjar: source.uri: no object matches './a.parquet'" in done.stderr
    assert "earlier night" not in done.stderr
    assert "nightjar: source.uri: no object matches './a.parquet'" in _log(project)
    shutil.rmtree(project / ".venv")
    done = _night(project)
    assert done.returncode not in (0, 75)
    assert ".venv/bin/nightjar" in done.stderr
    (project / "configs/nightly.yaml").unlink()
    done = _night(project)
    assert done.returncode == 2
    assert f"there is no spec 'configs/nightly.yaml' in {project}\n" in done.stderr
    assert not (project / "configs/nightly.yaml").exists()


def test_a_night_that_begins_while_another_goes_on_is_left_out(project: Path) -> None:
    waits = "for _ in $(seq 200); do [ -e end ] && break; sleep 0.05; done"
    _nightjar(project, f"echo $$ >> begun; {waits}; true")
    night = [project / "infra/cron/night", "configs/nightly.yaml"]
    with subprocess.Popen(night, stderr=subprocess.PIPE, text=True) as first:
        _await(lambda: (project / "begun").exists())
        second = _night(project)
        assert second.returncode == 75
        assert "the last one of configs/nightly.yaml still goes on" in second.stderr
        (project / "end").touch()
        assert first.communicate(timeout=30)[1] == ""
    assert first.returncode == 0
    assert len((project / "begun").read_text().splitlines()) == 1
    assert _night(project).returncode == 0, "and the next is not"


def test_whoever_a_killed_night_leaves_behind_holds_no_lock(project: Path) -> None:
    """As Ray's daemons are for a while."""
    _nightjar(project, "sleep 5 & echo $! > left; true")
    assert _night(project).returncode == 0
    assert _night(project).returncode == 0
    os.kill(int((project / "left").read_text()), 0)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `crontab` that keeps what it is given in a file."""
    command = tmp_path / "bin/crontab"
    command.parent.mkdir()
    command.write_text(
        f"#!/bin/sh\ncd '{tmp_path}'\n"
        'case $1 in\n-l) if [ -e denied ]; then echo "not allowed" >&2; exit 1; fi\n'
        '[ -e tab ] || { echo "no crontab for you" >&2; exit 1; }\ncat tab ;;\n'
        "-) cat > new; mv new tab ;;\nesac\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return tmp_path / "tab"


def _install(project: Path) -> "subprocess.CompletedProcess[str]":
    command = [str(project / "infra/cron/install")]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_line_is_put_into_a_crontab_once_and_the_others_stay(project: Path, fake: Path) -> None:
    line = f"30 1 * * * '{project}/infra/cron/night' configs/nightly.yaml\n"
    for _ in range(2):
        assert _install(project).returncode == 0
        assert fake.read_text() == line
    others = "# mine\nMAILTO=me\n0 * * * * 100\\% %in\n"
    fake.write_text(f"{others}9 9 * * * {line.split(' * * * ')[1]}")
    assert f"your crontab has: {line}" in _install(project).stdout
    assert fake.read_text() == others + line


def test_a_crontab_that_cannot_be_read_is_left_alone(project: Path, fake: Path) -> None:
    fake.write_text("# mine\n")
    fake.with_name("denied").touch()
    done = _install(project)
    assert (done.returncode, done.stderr) == (1, "not allowed\n")
    assert fake.read_text() == "# mine\n"


@pytest.mark.parametrize("sign", "%'\\&|")
def test_a_path_that_cron_would_misread_is_refused(project: Path, fake: Path, sign: str) -> None:
    moved = project.rename(project.with_name(f"a{sign}b"))
    done = _install(moved)
    assert done.returncode == 2
    assert "would take a sign in this path for one of theirs" in done.stderr
    assert not fake.exists()


@pytest.fixture
def cron() -> Iterator[None]:
    """A daemon, and the user's own crontab, which is put back."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    demand_installed([n for n in ("cron", "crontab") if not shutil.which(n, path=path)], "cron")
    before = subprocess.run(["crontab", "-l"], capture_output=True, check=False)
    daemon = None
    if os.geteuid() == 0:
        # one that finds another ends at once
        program = shutil.which("cron", path=path)
        assert program is not None
        daemon = subprocess.Popen([program, "-f"], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        if before.returncode == 0:
            subprocess.run(["crontab", "-"], input=before.stdout, check=True)
        else:
            subprocess.run(["crontab", "-r"], check=False)
        if daemon is not None:
            daemon.terminate()
            daemon.wait()


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(400)
def test_cron_itself_commits_a_snapshot(project: Path, cron: None) -> None:
    shipped = project / "infra/cron/crontab"
    assert shipped.read_text().count("\n30 1 * * * ") == 1
    shipped.write_text(shipped.read_text().replace("\n30 1 * * * ", f"\n{_MINUTE} "))
    assert _install(project).returncode == 0
    _await(lambda: (project / "nightly.log").exists(), _BEGINS_WITHIN)
    _await(lambda: "dataset: " in _log(project), _SECONDS)
    assert "; 4 rows embedded (4 text), " in _log(project)
    assert open_dataset(str(project / "out")).count() == 4


def _await(there: Any, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.05)
