"""The PromQL of the rules and of the dashboard, and what it names."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).parents[2] / "infra"
RULES = INFRA / "prometheus/rules.yaml"
DASHBOARD = INFRA / "grafana/dashboard.json"

_WORDS = {"and", "or", "unless", "bool", "offset"}
_NAME = re.compile(r"[a-zA-Z_:][\w:]*")


def rules() -> list[dict[str, Any]]:
    """All rules: those with `record`, and those with `alert`."""
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def recorded() -> set[str]:
    """The names that the rules record."""
    return {rule["record"] for rule in rules() if "record" in rule}


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard; rows are none."""
    return [p for p in json.loads(DASHBOARD.read_text())["panels"] if p["type"] != "row"]


def variables() -> list[dict[str, Any]]:
    """The dashboard's variables."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["templating"]["list"]
    return found


def drawn() -> Iterator[tuple[str, str]]:
    """The title of each panel of the dashboard with each of its expressions, for all of a job."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], re.sub(r"\$\w+", ".*", target["expr"])


def metrics_of(expression: str) -> set[str]:
    """The names of the metrics in an expression: what is no function, no word and no label."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", " ", bare)
    found = set()
    for match in _NAME.finditer(bare):
        is_called = bare[match.end() :].lstrip().startswith("(")
        in_number = re.search(r"[\d.]$", bare[: match.start()]) is not None
        if not (is_called or in_number or match[0] in _WORDS):
            found.add(match[0])
    return found


def labels_of(expression: str) -> set[str]:
    """The names of the labels in an expression."""
    grouped = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression)
    matched = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    return {name.strip() for names in grouped for name in names.split(",")} | set(matched)
