"""The manifests are what KubeRay and Kubernetes take, and agree with the project and each other."""

import copy
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from jobs.arguments import parser
from pipeline.index.spec import BackfillSpec, EvaluateSpec
from pipeline.spec_file import load_spec
from tests.infra.schemas import ROOT, documents, validate

MANIFESTS = ROOT / "infra/kubernetes"
FILES = sorted(path.name for path in MANIFESTS.iterdir())
_ALL = [document for name in FILES for document in documents(MANIFESTS / name)]


def _only(kind: str) -> dict[str, Any]:
    (found,) = (document for document in _ALL if document["kind"] == kind)
    return copy.deepcopy(found)


def _pods(document: Any) -> list[dict[str, Any]]:
    """All pod specs in a document."""
    if isinstance(document, list):
        return [pod for part in document for pod in _pods(part)]
    if not isinstance(document, dict):
        return []
    here = [document] if "containers" in document else []
    return here + [pod for part in document.values() for pod in _pods(part)]


@pytest.mark.parametrize("name", FILES)
def test_every_document_is_what_a_strict_api_server_takes(name: str) -> None:
    found = documents(MANIFESTS / name)
    assert found
    for document in found:
        validate(document)


def test_a_mistyped_key_of_kuberay_is_found_however_deep() -> None:
    for path in (
        ["spec", "enableInTreeAutoscalin"],
        ["spec", "workerGroupSpecs", 0, "minReplica"],
        ["spec", "headGroupSpec", "template", "spec", "containers", 0, "volumeMount"],
    ):
        cluster = _only("RayCluster")
        inner: Any = cluster
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = True
        with pytest.raises(jsonschema.ValidationError, match=str(path[-1])):
            validate(cluster)
    cluster = _only("RayCluster")
    cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"] *= 2
    with pytest.raises(jsonschema.ValidationError, match="two entries"):
        validate(cluster)


def test_a_mistyped_key_of_kubernetes_is_found() -> None:
    night = _only("CronJob")
    night["spec"]["jobTemplate"]["spec"]["backOffLimit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(night)


def test_the_job_brings_the_standing_clusters_spec() -> None:
    assert _only("RayJob")["spec"]["rayClusterSpec"] == _only("RayCluster")["spec"]


def test_what_pods_name_is_there() -> None:
    made = {(document["kind"], document["metadata"].get("name")) for document in _ALL}
    told = (ROOT / "infra/RUNBOOK.md").read_text()
    for pod in _pods(_ALL):
        assert ("ServiceAccount", pod["serviceAccountName"]) in made
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        containers = pod["containers"] + pod.get("initContainers", [])
        mounted = {mount["name"] for part in containers for mount in part["volumeMounts"]}
        assert mounted == set(volumes)
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in made
            if "secret" in volume:
                assert f"secret generic {volume['secret']['secretName']}" in told


def test_no_container_is_root_but_the_one_that_gives_its_directory_away() -> None:
    for pod in _pods(_ALL):
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"] + pod.get("initContainers", []):
            context = container["securityContext"]
            assert not context["allowPrivilegeEscalation"]
            assert context["capabilities"]["drop"] == ["ALL"]
            assert ("runAsUser" in context) == (container["name"] == "own-cache")


def test_every_container_has_requests_that_are_its_limits() -> None:
    for pod in _pods(_ALL):
        for container in pod["containers"] + pod.get("initContainers", []):
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["limits"].keys()
            assert resources["requests"] == resources["limits"]


def test_workers_drain_within_the_grace_that_they_get() -> None:
    for group in _only("RayCluster")["spec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (drain,) = pod["containers"][0]["env"]
        assert drain["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
        assert int(drain["value"]) < pod["terminationGracePeriodSeconds"]


def test_objects_and_weights_fit_the_memory_of_a_gpu_worker() -> None:
    cluster = _only("RayCluster")
    (group,) = (g for g in cluster["spec"]["workerGroupSpecs"] if g["groupName"] == "gpu")
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    memory = int(limits["memory"].removesuffix("Gi")) << 30
    assert int(limits["nvidia.com/gpu"]) == 1
    # and as much again, for the interpreters and what the CPU tasks hold
    assert 2 * 7_500_000_000 + int(group["rayStartParams"]["object-store-memory"]) < memory


def test_versions_are_those_of_the_project() -> None:
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and _only("RayCluster")["spec"]["rayVersion"] == pinned[1]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    written = [path for path in (ROOT / "infra").rglob("*") if path.is_file()]
    tags = [
        tag for path in written for tag in re.findall(r"nightjar:([\w.]+)-[cg]pu", path.read_text())
    ]
    assert set(tags) == {version}


def test_the_specs_that_pods_are_given_are_valid_and_of_one_dataset(tmp_path: Path) -> None:
    written = {}
    for name, text in _only("ConfigMap")["data"].items():
        written[name] = tmp_path / name
        written[name].write_text(text)
    assert set(written) == {"nightly.yaml", "backfill.yaml", "evaluate.yaml"}
    job = load_spec(written["nightly.yaml"])
    backfill = load_spec(written["backfill.yaml"], (), BackfillSpec)
    evaluation = load_spec(written["evaluate.yaml"], (), EvaluateSpec)
    assert job.output.uri == backfill.dataset.uri == evaluation.dataset.uri
    assert job.model.path == evaluation.model.path
    assert job.storage == backfill.storage == evaluation.storage


def test_a_run_asks_for_no_more_than_the_groups_may_have(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(_only("ConfigMap")["data"]["nightly.yaml"])
    growth = load_spec(tmp_path / "spec.yaml").compute.grows_to
    most = {"cpu": 0.0, "nvidia.com/gpu": 0.0}
    for group in _only("RayCluster")["spec"]["workerGroupSpecs"]:
        for container in group["template"]["spec"]["containers"]:
            for name, amount in container["resources"]["limits"].items():
                if name in most:
                    most[name] += group["maxReplicas"] * float(amount)
    assert growth.gpus == most["nvidia.com/gpu"]
    assert growth.cpus == most["cpu"]


def test_the_jobs_command_parses_and_names_the_mounted_spec() -> None:
    job = _only("RayJob")["spec"]
    program, *arguments = shlex.split(job["entrypoint"])
    assert program == "nightjar"
    assert _mounted(parser().parse_args(arguments).spec)
    given = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    assert int(given["RAY_JOB_STOP_WAIT_TIME_S"]) > 3


def test_the_nights_command_parses_and_names_the_mounted_spec() -> None:
    (container,) = _pods(_only("CronJob"))[0]["containers"]
    program, *arguments = container["command"] + container["args"]
    assert program == "nightjar"
    parsed = parser().parse_args(arguments)
    assert _mounted(parsed.spec)
    assert f"//{_only('RayCluster')['metadata']['name']}-head-svc:" in parsed.address


def _mounted(path: str) -> bool:
    return path in {f"/etc/nightjar/{name}" for name in _only("ConfigMap")["data"]}


def test_a_night_is_never_beside_another_and_a_users_mistake_is_not_tried_again() -> None:
    night = _only("CronJob")["spec"]
    assert night["concurrencyPolicy"] == "Forbid"
    first, second = night["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    (container,) = _pods(night)[0]["containers"]
    assert first["action"] == "FailJob"
    assert first["onExitCodes"]["containerName"] == container["name"]
    assert first["onExitCodes"]["values"] == [2]
    assert second["action"] == "Ignore"
    # or Kubernetes does not take the policy
    assert _pods(night)[0]["restartPolicy"] == "Never"
