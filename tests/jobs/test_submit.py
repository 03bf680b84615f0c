"""What is typed for a job that is submitted."""

from argparse import Namespace
from pathlib import Path

import pytest

from jobs import submit
from jobs.arguments import parser
from pipeline.errors import SpecError

_ALL = {"price": 2.5, "allow_empty": True, "beside": True, "older": True, "json": True}


@pytest.mark.parametrize("kind", ["embed", "nightly", "backfill", "evaluate"])
def test_each_command_takes_its_own_options_and_no_other(kind: str, tmp_path: Path) -> None:
    values = {**_ALL, "out": str(tmp_path)}
    for name, value in values.items():
        typed = Namespace(**{**dict.fromkeys(values), name: value})
        if kind == "evaluate":
            typed.out = str(tmp_path)
        if kind in submit._OPTIONS[name]:
            parser().parse_args([kind, "spec.yaml", *submit._options(typed, kind)])
            continue
        option = f"--{name.replace('_', '-')}"
        with pytest.raises(SpecError, match=f"{option}: is of .*, and this spec is of {kind}"):
            submit._options(typed, kind)
        with pytest.raises(SystemExit):
            parser().parse_args([kind, "spec.yaml", option])


def test_what_a_spec_is_of_is_read_off_its_sections_as_they_are_overridden(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: night\n")
    assert submit._kind(str(path), []) == "embed"
    assert submit._kind(str(path), ["nightly.on_gone=keep"]) == "nightly"
    assert submit._kind(str(path), ["store.kind=lancedb"]) == "backfill"
    assert submit._kind(str(path), ["queries.uri=q.jsonl"]) == "evaluate"
