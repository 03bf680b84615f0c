"""Manifests held against the schemas of Kubernetes and KubeRay, as a strict API server would."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.37"
_BESIDE = ROOT.parent / "shared/kuberay-crds"


def documents(path: Path) -> list[dict[str, Any]]:
    """What a YAML file has, as `kubectl` reads it."""
    return list(yaml.load_all(path.read_text(), yaml.CSafeLoader))


def validate(document: dict[str, Any]) -> None:
    """Fail on whatever an API server would refuse or quietly drop; skip where no schema is.

    KubeRay's rules in CEL are not evaluated: there is no interpreter of it here.
    """
    if document["apiVersion"].startswith("ray.io/"):
        _validator(document["kind"], document["apiVersion"].partition("/")[2]).validate(document)
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@cache
def _validator(kind: str, version: str) -> jsonschema.Draft202012Validator:
    (definition,) = documents(_definitions() / f"ray.io_{kind.lower()}s.yaml")
    (schema,) = (
        found["schema"]["openAPIV3Schema"]
        for found in definition["spec"]["versions"]
        if found["name"] == version
    )
    return _Structural(_strict(schema))


def _definitions() -> Path:
    named = os.environ.get("KUBERAY_CRD_DIR")
    found = Path(named) if named else _BESIDE
    if named or found.is_dir():
        return found
    pytest.skip(f"KUBERAY_CRD_DIR is not set, and there is no {_BESIDE}")


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema, in which a key that would be pruned is an error."""
    found = {key: value for key, value in schema.items() if key not in ("properties", "items")}
    if "properties" in schema:
        inner = schema["properties"]
        found["properties"] = {name: _strict(inner[name]) for name in inner}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found.setdefault("additionalProperties", False)
    if "items" in schema:
        found["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = _strict(schema["additionalProperties"])
    if schema.get("x-kubernetes-int-or-string"):
        found["type"] = ["integer", "string"]
    return found


def _unique_keys(
    _: Any, keys: list[str], instance: Any, schema: dict[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """Of a list that is a map, such as containers: no two entries of one name."""
    names = [tuple(entry.get(key) for key in keys) for entry in instance]
    for name in names:
        if names.count(name) > 1:
            yield jsonschema.ValidationError(f"two entries have the same {keys}: {name}")


_Structural = jsonschema.validators.extend(
    jsonschema.Draft202012Validator, {"x-kubernetes-list-map-keys": _unique_keys}
)
