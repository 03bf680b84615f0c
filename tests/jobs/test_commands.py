"""The smaller commands: show, schema, checkpoint; and a checkpoint that a job must refuse."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.cli import main
from pipeline import open_dataset
from pipeline.spec import json_schema
from tests.jobs import embed, write_parquet, write_spec

Captured = pytest.CaptureFixture[str]
ADAPTERS = "adapters/adapter_model.safetensors"


def test_show_prints_version_schema_fingerprint_and_rows(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "a.parquet"))
    assert embed(spec) == 0
    write_parquet(tmp_path / "a.parquet", body=["one", "", "three", "four"])
    assert embed(spec) == 0
    capsys.readouterr()
    uri = str(tmp_path / "out")
    assert main(["show", uri, "--rows", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"dataset      {uri}\n")
    assert re.search(r"^version +2, committed \S+$", out, re.M)
    assert re.search(r"^rows +3, and 1 quarantined$", out, re.M)
    assert f"fingerprint  {open_dataset(uri).entry.fingerprint}\n" in out
    for field in open_dataset(uri).schema:
        assert re.search(rf"^  {field.name} +{re.escape(str(field.type))}$", out, re.M)
    assert out.count("\nrow\n") == 1
    assert re.search(r"^  id +10$", out, re.M)
    assert re.search(r"^  embedding +\[-?\d\.\d{4}, .*\.\.\.\]$", out, re.M)
    assert re.search(r"^  multivector +\d+ x 128, the last \[", out, re.M)
    assert main(["show", uri, "--version", "1", "--rows", "0"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^version +1, ", out, re.M)
    assert re.search(r"^rows +4, and 0 quarantined$", out, re.M)
    assert "\nrow\n" not in out


def test_show_of_no_dataset_or_no_such_version_is_a_sentence_and_exit_code_2(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    assert main(["show", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"nightjar: {str(tmp_path)!r} holds no committed dataset\n"
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "a.parquet"))
    assert embed(spec) == 0
    assert main(["show", str(tmp_path / "out"), "--version", "9"]) == 2
    assert "has no version 9; it has 1 to 1" in capsys.readouterr().err


def test_schema_prints_the_json_schema_of_a_spec(capsys: Captured) -> None:
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json_schema()
    jsonschema.Draft202012Validator.check_schema(printed)


def test_checkpoint_tiny_makes_what_verify_accepts(tmp_path: Path, capsys: Captured) -> None:
    where = tmp_path / "new"
    assert main(["checkpoint", "tiny", str(where), "--seed", "3", "--hidden", "128"]) == 0
    assert capsys.readouterr().out == f"random checkpoint, hidden size 128, seed 3: {where}\n"
    assert main(["checkpoint", "verify", str(where)]) == 0
    out = capsys.readouterr().out
    for line in (
        f"checkpoint   {where}",
        "decoder      2 layers, hidden 128, 4 heads, 2 key/value heads, vocabulary",
        "vision       4 blocks, hidden 64, images of 3,136 to 602,112 pixels",
        "vectors      single 128, cut to 32, 64, 128; multi 128",
        "adapters     retrieval, text-matching, code (scale 1)",
        "all there, none unexpected",
        "licence      none in the checkpoint; the published weights are for non-commercial use",
    ):
        assert line in out
    assert re.search(r"^fingerprint  [0-9a-f]{64}$", out, re.M)
    assert re.search(
        r"^tensors +\d+ of the base \([\d,]+ parameters\), \d+ of the adapters", out, re.M
    )
    (where / "LICENSE.txt").write_text("words")
    assert main(["checkpoint", "verify", str(where)]) == 0
    assert "licence      see LICENSE.txt in the checkpoint" in capsys.readouterr().out


def test_the_seed_decides_the_checkpoints_fingerprint(tmp_path: Path, capsys: Captured) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert main(["checkpoint", "tiny", str(tmp_path / name), "--seed", str(seed)]) == 0
        assert main(["checkpoint", "verify", str(tmp_path / name)]) == 0
        found += re.findall(r"^fingerprint  (\w+)$", capsys.readouterr().out, re.M)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tiny", "{full}"], "is not an empty directory"),
        (["tiny", "{new}", "--hidden", "65"], "geometry.hidden: 65 does not fit"),
        (["verify", "{new}"], "is not a checkpoint directory"),
        (["verify", "{full}"], r"config\.json is missing"),
    ],
)
def test_a_mistake_about_a_checkpoint_is_a_sentence_and_exit_code_2(
    tmp_path: Path, capsys: Captured, arguments: list[str], expected: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    places = {"full": str(tmp_path / "full"), "new": str(tmp_path / "new")}
    assert main(["checkpoint", *(part.format(**places) for part in arguments)]) == 2
    error = capsys.readouterr().err
    assert re.search(expected, error), error
    assert error.count("\n") == 1


def _change_adapters(checkpoint: Path, change: str) -> str:
    """Damage the adapters; returns a pattern of the sentence."""
    tensors: dict[str, torch.Tensor] = load_file(checkpoint / ADAPTERS)
    key = sorted(tensors)[0]
    if change == "missing":
        del tensors[key]
        expected = f"misses tensor .*{key.rpartition('.lora_')[0].rpartition('.')[2]}"
    elif change == "unexpected":
        tensors[key.replace("lora_A", "lora_C")] = tensors[key].clone()
        expected = "lora_C"
    else:
        tensors[key] = tensors[key][:, :-1].contiguous()
        expected = "shape"
    save_file(tensors, checkpoint / ADAPTERS)
    return expected


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_adapters_that_do_not_fit_are_refused_by_a_job_and_by_verify(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured, change: str
) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, checkpoint)
    expected = _change_adapters(checkpoint, change)
    spec = write_spec(tmp_path, checkpoint, write_parquet(tmp_path / "a.parquet"))
    for run in (lambda: embed(spec), lambda: main(["checkpoint", "verify", str(checkpoint)])):
        assert run() == 2
        error = capsys.readouterr().err
        assert re.search(expected, error), error
        assert "adapter" in error
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "preprocessor_config.json", ADAPTERS],
)
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_checkpoint_that_cannot_be_read_is_refused_with_exit_code_2(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured, name: str, damage: str
) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, checkpoint)
    if damage == "gone":
        (checkpoint / name).unlink()
    else:
        (checkpoint / name).write_bytes((checkpoint / name).read_bytes()[:50])
    spec = write_spec(tmp_path, checkpoint, write_parquet(tmp_path / "a.parquet"))
    assert embed(spec) == 2
    error = capsys.readouterr().err
    assert str(checkpoint / name) in error
    assert error.startswith("nightjar: ")


def test_a_checkpoint_without_the_adapter_of_the_task_is_refused(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    checkpoint = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    config["task_names"] = ["retrieval", "text-matching"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    kept = {k: v for k, v in load_file(checkpoint / ADAPTERS).items() if ".code." not in k}
    save_file(kept, checkpoint / ADAPTERS)
    source = write_parquet(tmp_path / "a.parquet")
    assert embed(write_spec(tmp_path, checkpoint, source | {"task": "code.query"})) == 2
    assert "has no adapter 'code'; it has retrieval, text-matching" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["embed"], ["frobnicate"], ["show"], ["checkpoint"]])
def test_arguments_that_make_no_command_exit_with_2(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: nightjar" in capsys.readouterr().err


def test_an_address_that_is_none_is_refused(
    tmp_path: Path, tiny_checkpoint: Path, capsys: Captured
) -> None:
    spec = write_spec(tmp_path, tiny_checkpoint, write_parquet(tmp_path / "a.parquet"))
    assert main(["embed", str(spec), "--address", "nowhere"]) == 2
    assert "--address: 'nowhere' is not one of local, auto, none" in capsys.readouterr().err


def test_show_tells_which_rows_were_set_aside_and_why(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_parquet(tmp_path / "a.parquet", body=["fine", " ", None, "fine"])
    assert embed(write_spec(tmp_path, tiny_checkpoint, source)) == 0
    capsys.readouterr()
    assert main(["show", str(tmp_path / "out"), "--rows", "1"]) == 0
    out = capsys.readouterr().out
    assert "quarantine   1 empty_input, 1 null_input" in out
    assert "11  empty_input: the text is empty or only white space" in out
    assert "a.parquet#row=1" in out


def test_a_column_kept_by_one_source_is_not_taken_from_another(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    (tmp_path / "l.jsonl").write_text('{"doc": 99, "body": "a line", "title": 5}\n')
    lines = {
        "uri": str(tmp_path / "l.jsonl"),
        "format": "jsonl",
        "id": "doc",
        "text": "body",
        "task": "code.query",
    }
    sources = [write_parquet(tmp_path / "a.parquet"), lines]
    assert embed(write_spec(tmp_path, tiny_checkpoint, sources)) == 0
    rows = open_dataset(str(tmp_path / "out")).to_table(["id", "title"]).to_pylist()
    assert {"id": 99, "title": None} in rows
    assert {"id": 10, "title": "A"} in rows
