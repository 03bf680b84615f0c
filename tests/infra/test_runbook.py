"""The pages of infra/ are true: commands parse, files are there, links lead somewhere."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from jobs.arguments import parser
from tests.infra.schemas import ROOT

PAGES = [ROOT / "infra/RUNBOOK.md", ROOT / "infra/README.md", ROOT / "infra/policies/README.md"]
_ROOMS = "infra|configs|tests|pipeline|jobs|benchmarks"


def _console(page: Path) -> list[str]:
    """The lines of console blocks, joined where a backslash joins them, without their prompt."""
    blocks = re.findall(r"^ *```console\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [re.sub(r"^ *\$ ", "", line).strip() for line in lines]


def _spans(page: Path) -> list[str]:
    """Code within sentences, which may go on in the next line."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def _typed() -> list[str]:
    """All commands of ours that are printed in full."""
    lines = [line for page in PAGES for line in _console(page)]
    spans = [span for page in PAGES for span in _spans(page) if not _only_named(span)]
    return sorted({text for text in lines + spans if text.startswith("nightjar ")})


def _only_named(span: str) -> bool:
    """Whether it is a command without what it is about, perhaps with options."""
    return all(word.startswith("--") for word in span.split()[2:])


@pytest.mark.parametrize("command", _typed(), ids=lambda command: command[:60])
def test_every_command_of_ours_is_one(command: str) -> None:
    parser().parse_args(shlex.split(command)[1:])


def test_a_command_that_is_only_named_is_one() -> None:
    spans = [span for page in PAGES for span in _spans(page) if span.startswith("nightjar ")]
    names = {span.split()[1] for span in spans if _only_named(span)}
    assert names
    usage = parser().format_help()
    for name in names:
        assert re.search(rf"^    {name}\b", usage, re.MULTILINE), name


def test_a_command_that_is_none_would_be_found() -> None:
    for command in ("nightjar rolback s3://lake/docs 1", "nightjar gc s3://lake/docs --delte"):
        with pytest.raises(SystemExit):
            parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_command_is_one_of_the_shells(page: Path) -> None:
    script = "\n".join(_console(page))
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=30)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_file_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(rf"(?<![\w./-])(?:{_ROOMS})/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        else:
            assert (page.parent / link).exists(), link


def test_the_readmes_table_has_every_file() -> None:
    told = (ROOT / "infra/README.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", told, re.MULTILINE)
    named: set[str] = set()
    for row in rows:
        first, *others = re.findall(r"`(.*?)`", row)
        named |= {first} | {f"{Path(first).parent}/{name}" for name in others}
    for path in (ROOT / "infra").rglob("*"):
        inside = str(path.relative_to(ROOT / "infra"))
        if path.is_file() and "/" in inside:
            assert any(inside == name or inside.startswith(name) for name in named), inside
