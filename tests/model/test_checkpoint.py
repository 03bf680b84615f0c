"""A spoilt checkpoint is refused on opening, in one sentence that names the file or the tensor."""

import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import CheckpointError
from pipeline.model.checkpoint import open_checkpoint
from pipeline.model.geometry import TINY
from pipeline.model.layout import base_shapes
from pipeline.model.new_settings import model_config
from pipeline.model.processor import Processor
from pipeline.model.random_checkpoint import write_random_checkpoint

ADAPTER_FILE = "adapters/adapter_model.safetensors"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("layout") / "tiny"
    write_random_checkpoint(directory, TINY)
    return directory


@pytest.fixture
def edited(untouched: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint for one test to spoil."""
    return Path(shutil.copytree(untouched, tmp_path / "edited"))


def refusal(path: Path | str) -> str:
    """The one sentence in which opening a checkpoint is refused."""
    with pytest.raises(CheckpointError) as refused:
        open_checkpoint(path)
    sentence = str(refused.value)
    assert sentence and "\n" not in sentence
    return sentence


def spoil(file: Path, change: Callable[[bytes], bytes]) -> None:
    file.write_bytes(change(file.read_bytes()))


def a_shard(directory: Path) -> str:
    return min(file.name for file in directory.glob("model-*.safetensors"))


def test_an_untouched_checkpoint_has_every_tensor_of_the_table(untouched: Path) -> None:
    opened = open_checkpoint(untouched)
    assert {name: t.shape for name, t in opened.base.items()} == base_shapes(model_config(TINY))
    assert len(opened.adapters) == 3 * 2 * (2 * 7 + 1)


@pytest.mark.parametrize("file", ["base", "adapters"])
def test_a_foreign_tensor_is_refused_by_name(edited: Path, file: str) -> None:
    path = edited / (a_shard(edited) if file == "base" else ADAPTER_FILE)
    key = "text_model.encoder.layer.0.weight"
    save_file(load_file(path) | {key: torch.zeros(2, 2)}, path, {"format": "pt"})
    assert key in refusal(edited)


def test_a_hub_id_that_cannot_be_had_is_refused_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert refusal("nobody/no-such-model").startswith(
        "'nobody/no-such-model' is no local directory, and the hub could not provide it: "
    )


@pytest.mark.parametrize("path", ["nowhere", "/nowhere/at/all", "a/b/c", "../nobody", "a b/c"])
def test_what_is_neither_a_directory_nor_a_hub_id_never_reaches_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    (tmp_path / "in" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in" / "here")
    assert "is not a checkpoint directory" in refusal(path)


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "tokenizer.json", "preprocessor_config.json"),
        *("adapters/adapter_config.json", ADAPTER_FILE),
    ],
)
def test_a_missing_file_is_refused_by_name(edited: Path, name: str) -> None:
    (edited / name).unlink()
    assert refusal(edited).startswith(f"{edited / name} is missing")


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "adapters/adapter_config.json"]
)
@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe{}", b"[1, 2]", b"null"])
def test_settings_that_are_no_json_object_are_refused_by_name(
    edited: Path, name: str, content: bytes
) -> None:
    (edited / name).write_bytes(content)
    assert str(edited / name) in refusal(edited)


def test_a_broken_tokenizer_is_refused_by_name(edited: Path) -> None:
    spoil(edited / "tokenizer.json", lambda content: content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        Processor(open_checkpoint(edited))


@pytest.mark.parametrize("kept", [0, 4, 8, 300])
@pytest.mark.parametrize("file", ["base", "adapters"])
def test_weights_cut_off_in_the_header_are_refused_by_name(
    edited: Path, file: str, kept: int
) -> None:
    path = edited / (a_shard(edited) if file == "base" else ADAPTER_FILE)
    spoil(path, lambda content: content[:kept])
    assert refusal(edited).startswith(f"{path} cannot be read as safetensors: ")


def test_weights_whose_header_claims_more_than_the_file_are_refused_by_name(edited: Path) -> None:
    path = edited / a_shard(edited)
    spoil(path, lambda content: b"\xff" * 8 + content[8:])
    assert refusal(edited) == (
        f"{path} cannot be read as safetensors: its header is longer than the file"
    )


@pytest.mark.fault("security.weights")
def test_weights_in_pickles_alone_are_refused(edited: Path) -> None:
    for file in edited.glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    assert refusal(edited) == (
        f"{edited} has no *.safetensors file; other weight formats are not read"
    )
