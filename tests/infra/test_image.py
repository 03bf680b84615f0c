"""The image: a linter finds nothing, and what is copied is what Docker is sent."""

import re
import subprocess
import sys
from pathlib import Path

from tests.infra.schemas import ROOT

DOCKERFILE = ROOT / "infra/image/Dockerfile"
_HADOLINT = Path(sys.executable).parent / "hadolint"


def _lint(text: str) -> str:
    done = subprocess.run(
        [_HADOLINT, "-"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout


def test_the_linter_finds_nothing_and_would_find_an_unpinned_base() -> None:
    text = DOCKERFILE.read_text()
    assert _lint(text) == ""
    assert "DL3006" in _lint(re.sub(r"(FROM python):\S+", r"\1", text))


def test_no_stage_that_runs_is_root() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)[1:]
    runs = [stage for stage in stages if "\nCMD " in stage]
    assert len(runs) == 2
    assert all("\nUSER 1000:1000\n" in stage for stage in runs)


def test_docker_is_sent_what_is_copied_and_nothing_else() -> None:
    copied = {
        name
        for names in re.findall(r"^COPY (.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
        for name in names.split()
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_both_stages_install_what_any_spec_may_name() -> None:
    extras = re.findall(r"whl\)\[(.*?)\]", DOCKERFILE.read_text())
    assert len(extras) == 2
    project = (ROOT / "pyproject.toml").read_text()
    (everything,) = re.findall(r'"nightjar\[(.*?)\]"', project)
    assert {frozenset(some.split(",")) for some in extras} == {frozenset(everything.split(","))}
