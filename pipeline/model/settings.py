"""The JSON files of a checkpoint, read and checked key by key before anything relies on them.

A checkpoint comes from elsewhere: every key used later is demanded here with its kind, so that a
wrong file is one sentence and not an exception deep in a loader.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError

Kind = tuple[str, Callable[[Any], bool]]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


COUNT: Kind = ("a whole number above 0", _is_count)
TOKEN: Kind = ("a token id", lambda value: isinstance(value, int) and value >= 0)
NUMBER: Kind = ("a number", _is_number)
OBJECT: Kind = ("an object", lambda value: isinstance(value, dict))
COUNTS: Kind = (
    "a list of whole numbers",
    lambda value: isinstance(value, list) and bool(value) and all(map(_is_count, value)),
)
NAMES: Kind = (
    "a list of names",
    lambda value: (
        isinstance(value, list) and bool(value) and all(isinstance(n, str) for n in value)
    ),
)
RGB: Kind = (
    "three numbers",
    lambda value: isinstance(value, list) and len(value) == 3 and all(map(_is_number, value)),
)

_TOP: dict[str, Kind] = {
    "vision_config": OBJECT,
    "multi_vector_projector_dim": COUNT,
    "matryoshka_dims": COUNTS,
    "task_names": NAMES,
    "image_token_id": TOKEN,
    "vision_start_token_id": TOKEN,
    "vision_end_token_id": TOKEN,
}
_DECODER: dict[str, Kind] = {
    "hidden_size": COUNT,
    "intermediate_size": COUNT,
    "num_hidden_layers": COUNT,
    "num_attention_heads": COUNT,
    "num_key_value_heads": COUNT,
    "vocab_size": COUNT,
    "rope_theta": NUMBER,
    "rope_scaling": OBJECT,
}
_VISION: dict[str, Kind] = {
    "depth": COUNT,
    "hidden_size": COUNT,
    "intermediate_size": COUNT,
    "num_heads": COUNT,
    "out_hidden_size": COUNT,
    "patch_size": COUNT,
    "temporal_patch_size": COUNT,
    "spatial_merge_size": COUNT,
}
_UNSUPPORTED = (
    "alpha_pattern",
    "fan_in_fan_out",
    "layers_to_transform",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "use_dora",
    "use_rslora",
)


def read_config(file: Path) -> dict[str, Any]:
    """The parsed config.json.

    Raises:
        CheckpointError: it is missing, no JSON, or a key is missing or of the wrong kind.
    """
    config = _read(file)
    _demand(config, _TOP, file, "")
    text = config.get("text_config") or config
    _demand(text, _DECODER, file, "text_config." if text is not config else "")
    _demand(text["rope_scaling"], {"mrope_section": COUNTS}, file, "rope_scaling.")
    _demand(config["vision_config"], _VISION, file, "vision_config.")
    strategy = config.get("single_vector_pool_strategy", "mean")
    if strategy != "mean":
        raise CheckpointError(
            f"{file}: single_vector_pool_strategy is {strategy!r}, expected 'mean'"
        )
    return config


def read_preprocessor(file: Path) -> dict[str, Any]:
    """The parsed preprocessor_config.json; newer files keep the pixel bounds in `size`.

    Raises:
        CheckpointError: it is missing, no JSON, or a key is missing or of the wrong kind.
    """
    found = _read(file)
    size = found.get("size") if isinstance(found.get("size"), dict) else {}
    found.setdefault("min_pixels", (size or {}).get("shortest_edge"))
    found.setdefault("max_pixels", (size or {}).get("longest_edge"))
    wanted = {"min_pixels": COUNT, "max_pixels": COUNT, "image_mean": RGB, "image_std": RGB}
    _demand(found, wanted, file, "")
    return found


def read_adapter_config(file: Path) -> dict[str, Any]:
    """The parsed adapters/adapter_config.json.

    Raises:
        CheckpointError: it is missing, no JSON, a key is missing or of the wrong kind, or it asks
            for more than plain LoRA.
    """
    found = _read(file)
    _demand(found, {"r": COUNT, "lora_alpha": NUMBER}, file, "")
    for key in _UNSUPPORTED:
        if found.get(key):
            raise CheckpointError(f"{file}: {key} is {found[key]!r}; only plain LoRA is supported")
    targets = found.get("target_modules")
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            raise CheckpointError(f"{file}: target_modules is no regex: {error}") from error
    elif not NAMES[1](targets):
        raise CheckpointError(
            f"{file}: target_modules is {targets!r}, expected a regular expression or a list"
        )
    return found


def _demand(section: Mapping[str, Any], wanted: Mapping[str, Kind], file: Path, at: str) -> None:
    missing = [f"{at}{key}" for key in wanted if key not in section]
    if missing:
        raise CheckpointError(
            f"{file} has no {', '.join(missing)}: it is not of a jina-embeddings-v4 checkpoint"
        )
    for key, (expected, holds) in wanted.items():
        if not holds(section[key]):
            raise CheckpointError(f"{file}: {at}{key} is {section[key]!r}, expected {expected}")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing; model.path must be a directory in the official file layout"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} must hold a JSON object")
    return content
