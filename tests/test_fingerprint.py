"""The fingerprint: of whatever decides the value of an embedding, and of nothing else."""

import re
from typing import Any

import pytest
import yaml

from pipeline.fingerprint import fingerprint
from pipeline.spec import JobSpec
from tests.test_spec import EXAMPLE, _with

HASHES = {"config.json": "00", "model.safetensors": "11"}


def _fingerprint(
    raw: dict[str, Any], hashes: dict[str, str] = HASHES, dtype: str = "float32"
) -> str:
    return fingerprint(JobSpec.model_validate(raw), hashes, dtype)


def test_the_fingerprint_changes_with_whatever_decides_a_vector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = _with("name", "docs-nightly")
    found = {
        "as it is": _fingerprint(base),
        "max_length": _fingerprint(_with("model.max_length", 512)),
        "max_pixels": _fingerprint(_with("model.max_pixels", 100_000)),
        "dim": _fingerprint(_with("output.single.dim", 1024)),
        "two dims": _fingerprint(_with("output.single.dim", [2048, 256])),
        "single dtype": _fingerprint(_with("output.single.dtype", "float16")),
        "no single": _fingerprint(_with("output.single", None)),
        "multi dtype": _fingerprint(_with("output.multi.dtype", "float32")),
        "no multi": _fingerprint(_with("output.multi", None)),
        "weights": _fingerprint(base, {**HASHES, "model.safetensors": "12"}),
        "one file more": _fingerprint(base, {**HASHES, "adapters/adapter.safetensors": "1"}),
        "compute dtype": _fingerprint(base, dtype="bfloat16"),
    }
    monkeypatch.setattr("pipeline.fingerprint.ENCODE_VERSION", "next")
    found["our own code"] = _fingerprint(base)
    assert len(set(found.values())) == len(found), found
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in found.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "other"),
        ("model.path", "./elsewhere"),
        ("source.uri", "./other/*.parquet"),
        ("source.keep", ["title"]),
        ("output.uri", "./elsewhere"),
        ("compute.token_budget", 512),
        ("compute.compile", True),
        ("compute.unit_rows", 3),
        ("compute.pools", {}),
        ("source.image_hosts", ["a.test"]),
        ("limits.image_pixels", 1),
        ("limits.decode_seconds", 1),
        ("limits.decode_memory", 1 << 20),
    ],
)
def test_the_fingerprint_does_not_change_with_anything_else(key: str, value: object) -> None:
    assert _fingerprint(_with(key, value)) == _fingerprint(yaml.safe_load(EXAMPLE))


def test_the_fingerprint_does_not_depend_on_the_order_of_the_files() -> None:
    raw = yaml.safe_load(EXAMPLE)
    assert _fingerprint(raw, dict(reversed(HASHES.items()))) == _fingerprint(raw)
