"""The cluster on a laptop: valid, and on the loopback alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.spec import JobSpec
from pipeline.spec_file import load_spec
from tests.infra.schemas import ROOT

COMPOSE = ROOT / "infra/laptop/compose.yaml"
_CHECK = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema"]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


def _valid(path: Path) -> bool:
    command = [*_CHECK, "vendor.compose-spec", path]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def test_the_compose_file_is_one_and_a_mistyped_key_in_it_would_be_found(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    assert _valid(COMPOSE)
    compose["services"]["head"]["enviroment"] = {}
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(compose))
    assert not _valid(tmp_path / "compose.yaml")


def test_nothing_listens_beyond_the_loopback(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_what_is_mounted_or_built_from_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source, _, _ = volume.partition(":")
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists(), source
            else:
                assert source in compose["volumes"]
    built = compose["services"]["head"]["build"]
    context = (COMPOSE.parent / built["context"]).resolve()
    assert context == ROOT
    assert f" AS {built['target']}\n" in (context / built["dockerfile"]).read_text()


def test_its_spec_is_a_job(compose: dict[str, Any]) -> None:
    assert isinstance(load_spec(COMPOSE.parent / "spec.yaml"), JobSpec)


def test_grafana_is_led_to_prometheus_and_the_dashboard(compose: dict[str, Any]) -> None:
    provisioning = ROOT / "infra/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    (provider,) = yaml.safe_load((provisioning / "dashboards/nightjar.yaml").read_text())[
        "providers"
    ]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert f"127.0.0.1:{port}:{port}" in compose["services"][host]["ports"]
    mounted = {
        volume.split(":")[1]: volume.split(":")[0]
        for volume in compose["services"]["grafana"]["volumes"]
    }
    (at,) = (path for path in mounted if path.startswith(provider["options"]["path"]))
    dashboard = COMPOSE.parent / mounted[at]
    variables = json.loads(dashboard.read_text())["templating"]["list"]
    # the dashboard leaves it open which source of its kind is meant, and this is the only one
    (chosen,) = (one for one in variables if one["type"] == "datasource")
    assert chosen["query"] == source["type"]
