"""`nightjar train` as it is typed."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from jobs.cli import main
from pipeline.model.checkpoint import open_checkpoint

Captured = pytest.CaptureFixture[str]

_FRESH = {
    "hidden": 64,
    "layers": 1,
    "intermediate": 96,
    "vocabulary": 4096,
    "matryoshka_dims": [32, 64],
    "vision": {"hidden": 32, "depth": 2, "heads": 2, "intermediate": 48, "full_attention": [1]},
}


def _with(spec: Path, **keys: Any) -> Path:
    spec.write_text(yaml.safe_dump(yaml.safe_load(spec.read_text()) | keys))
    return spec


def test_an_adapter_is_trained_and_told_of(training_spec: Path, capsys: Captured) -> None:
    assert main(["train", str(training_spec)]) == 0
    told = capsys.readouterr()
    assert "adapter numbers trained in" in told.out
    assert "pairs.parquet: 59 pairs, 1 set aside\n" in told.err
    assert "row 59: what answers it is empty or null" in told.err
    assert "step 3 of 3: loss " in told.err
    assert told.err.count("held out of") == 2
    assert main(["checkpoint", "verify", str(training_spec.parent / "trained")]) == 0
    assert "retrieval, text-matching, code, numbers" in capsys.readouterr().out
    assert main(["train", str(training_spec)]) == 2
    assert "output.path: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dtype", "has_instructions", "sentence"),
    [
        ("auto", True, "passes in bfloat16 on "),
        ("auto", False, "passes in float32 on "),
        ("bfloat16", True, "passes in bfloat16 on "),
        ("bfloat16", False, ", which has no instructions for it: leave compute.dtype at auto "),
    ],
)
def test_bfloat16_is_taken_where_there_are_instructions_for_it(
    training_spec: Path,
    dtype: str,
    has_instructions: bool,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_instructions})
    compute = {"threads": 1, "dtype": dtype, "device": "cpu"}
    assert main(["train", str(_with(training_spec, compute=compute, steps=1))]) == 0
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("no instructions") == (dtype == "bfloat16" and not has_instructions)


def test_a_batch_of_more_pairs_than_there_are_is_told(
    training_spec: Path, capsys: Captured
) -> None:
    for pairs, is_told in ((59, False), (60, True)):
        batch = {"pairs": pairs}
        output = {"path": str(training_spec.parent / f"of-{pairs}")}
        assert main(["train", str(_with(training_spec, batch=batch, output=output, steps=1))]) == 0
        told = capsys.readouterr().err
        assert (
            f"a step takes {pairs} of them, so some are in it more than once" in told
        ) is is_told


def test_a_missing_model_is_told_before_the_pairs_are_read(
    training_spec: Path, capsys: Captured
) -> None:
    assert main(["train", str(_with(training_spec, model=str(training_spec.parent / "none")))]) == 2
    told = capsys.readouterr().err
    assert "none" in told
    assert "pairs.parquet: " not in told


def test_a_fresh_backbone_is_trained(training_spec: Path, capsys: Captured) -> None:
    assert main(["train", str(_with(training_spec, model=_FRESH, adapter=None))]) == 0
    assert "backbone and both heads trained in" in capsys.readouterr().out
    written = open_checkpoint(training_spec.parent / "trained")
    assert written.hidden_size == 64
    assert written.task_names == ("retrieval", "text-matching", "code")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"model": {**_FRESH, "hidden": 60}, "adapter": None},
            "model.hidden: 60 does not fit heads",
        ),
        ({"model": _FRESH}, "adapter: a fresh model knows nothing yet; train its backbone first"),
        ({"adapter": {"name": "My Task"}}, "adapter.name: 'My Task'"),
        ({"batch": {"sources": 2}}, "batch.sources: 2, but there are 1 of pairs"),
        ({"loss": {"dims": [7]}}, "loss.dims: 7 is not one of the checkpoint's matryoshka_dims"),
        ({"loss": {"single": 0, "late": 0, "graded": 0}}, "nothing would be learnt"),
        ({"pairs": [{"uri": "away.parquet"}]}, "pairs.uri: nothing is at 'away.parquet'"),
        ({"pairs": []}, "pairs"),
        ({"stepz": 3}, "did you mean 'steps'"),
    ],
)
def test_a_mistake_is_one_sentence(
    training_spec: Path, keys: dict[str, Any], sentence: str, capsys: Captured
) -> None:
    assert main(["train", str(_with(training_spec, **keys))]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told
    assert not (training_spec.parent / "trained").exists()


def test_the_spec_of_a_job_is_told_apart(capsys: Captured) -> None:
    assert main(["train", "configs/quickstart.yaml"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        "nightjar: source: unknown key, and pairs is missing; is this a spec of "
    )
    assert "of nightjar embed?" in told


def test_workers_without_ray_are_refused(training_spec: Path, capsys: Captured) -> None:
    assert main(["train", str(_with(training_spec, compute={"workers": 2}))]) == 2
    told = capsys.readouterr().err
    assert "compute.workers: 2, but no Ray was named; add --address local" in told
