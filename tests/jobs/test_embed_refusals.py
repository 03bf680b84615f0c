"""What `nightjar embed` refuses: a sentence, exit code 2 or 1, and nothing committed."""

import re
from pathlib import Path

import pytest

from pipeline import open_dataset
from pipeline.folder import Folder
from tests.jobs import embed, write_parquet, write_spec

Captured = pytest.CaptureFixture[str]


def _mistakes(directory: Path) -> dict[str, tuple[list[str], str]]:
    """--set overrides, and what the sentence says, for every entry under "Bad input"."""
    return {
        "mistyped key": (["source.formt=parquet"], "source.formt: .* did you mean 'format'"),
        "missing column": (
            ["source.text=bdy"],
            "source.text: .* has no column 'bdy'; it has doc, ",
        ),
        "no file": (["source.uri=/nowhere/*.parquet"], "source.uri: no object matches '/nowhere"),
        "no checkpoint": (["model.path=/nowhere"], "'/nowhere' is not a checkpoint directory"),
        "no such task": (["source.task=search"], "source.task: 'search'.* retrieval.query, "),
        "dim": (["output.single.dim=33"], "output.single.dim: 33 is not one of .* 16, 32, 64"),
        "max_pixels": (["model.max_pixels=100"], "model.max_pixels: 100 is below"),
        "reserved name": (["source.keep=[task]"], "source.keep: 'task' is a column of the output"),
        "unknown protocol": (["source.uri=gopher://x"], "cannot open gopher:// locations"),
    }


@pytest.mark.parametrize("case", list(_mistakes(Path())))
@pytest.mark.fault("column.missing", "file.nothing")
def test_a_users_mistake_is_a_sentence_and_exit_code_2_before_any_model_is_loaded(
    tmp_path: Path,
    tiny_checkpoint: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    overrides, expected = _mistakes(tmp_path)[case]
    source = write_parquet(tmp_path / "a.parquet", task=["code.query"] * 4)
    spec = write_spec(tmp_path, tiny_checkpoint, source)
    monkeypatch.setattr("pipeline.model.embedder.Engine.__init__", _no_model)
    code = embed(spec, *(part for override in overrides for part in ("--set", override)))
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert re.search(expected, captured.err), captured.err
    assert captured.err.startswith("nightjar: ")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def _no_model(*_: object, **__: object) -> None:
    raise AssertionError("a model was loaded")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("output.single.dim=16", "another schema (column 'embedding' is"),
        ("source.keep=[]", "another schema (only the dataset has the column 'title')"),
        ("source.id=title", "another schema (column 'id' is int64"),
        ("output.multi=null", "another schema (only the dataset has the column 'multivector')"),
        ("model.max_length=32", "vectors made another way (fingerprint"),
        ("model.dtype=bfloat16", "vectors made another way (fingerprint"),
    ],
)
@pytest.mark.fault("compute.two_configs")
def test_an_output_that_holds_something_else_is_refused(
    tmp_path: Path,
    tiny_checkpoint: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    expected: str,
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "a.parquet"))
    assert embed(spec) == 0
    monkeypatch.setattr("pipeline.model.embedder.Engine.__init__", _no_model)
    assert embed(spec, "--set", override) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.splitlines()[-1].endswith("choose another output.uri")
    assert open_dataset(str(tmp_path / "out")).version == 1


def test_a_run_in_which_no_row_is_embedded_fails_with_exit_code_1(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    source = write_parquet(tmp_path / "a.parquet", body=["", " ", "", ""])
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 1
    expected = "nightjar: all 4 items were quarantined (4 empty_input); nothing was committed"
    told = capsys.readouterr().err.splitlines()
    assert any(line.startswith(expected) for line in told)
    assert told[-1].endswith("a.parquet#row=2")
    assert Folder(str(tmp_path / "out")).names("log") == []


def test_rows_lost_on_the_way_fail_the_run_and_commit_nothing(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.stages.prepare import Prepare

    original = Prepare.__call__
    monkeypatch.setattr(Prepare, "__call__", lambda self, rows: original(self, rows.slice(1)))
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "a.parquet"))
    assert embed(spec) == 1
    assert "4 rows planned, 3 read" in capsys.readouterr().err
    assert Folder(str(tmp_path / "out")).names("log") == []


@pytest.mark.fault("file.corrupt")
def test_a_truncated_shard_is_refused_by_name(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    source = write_parquet(tmp_path / "a.parquet")
    path = tmp_path / "a.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 2
    assert f"{path} cannot be read as Parquet" in capsys.readouterr().err
