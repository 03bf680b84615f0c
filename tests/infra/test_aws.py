"""The cluster on AWS: Ray's own launcher takes it, and its roles allow what that launcher does."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import jsonschema
import pytest
import ray.autoscaler
import yaml
from moto import mock_aws
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.infra.schemas import ROOT

AWS = ROOT / "infra/aws"
CLUSTER = AWS / "cluster.yaml"
POLICIES = sorted([*AWS.glob("*.json"), *(ROOT / "infra/policies").glob("*.json")])
POLICIES.remove(ROOT / "infra/policies/lifecycle.json")  # a rule of a bucket
_SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
_PERMISSIONS_ALONE = {"iam:PassRole", "s3:ListBucket"}
"""Actions of a policy that are no operation of the service's API by that name."""
_ACCOUNT, _REGION = "123456789012", "eu-central-1"


def _read(path: Path, **places: str) -> Any:
    """A file of infra/aws/ with places for what is in capitals, as RUNBOOK.md has `sed` do it."""
    text = path.read_text()
    for word, value in {"ACCOUNT": _ACCOUNT, "REGION": _REGION, **places}.items():
        text = text.replace(word, value)
    return yaml.safe_load(text)


def test_the_cluster_file_is_one_and_a_mistyped_key_in_it_would_be_found() -> None:
    written = _read(CLUSTER)
    jsonschema.validate(written, _SCHEMA)
    validate_config(prepare_config(written))
    written["available_node_types"]["gpu"]["max_worker"] = 1
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate(written, _SCHEMA)


def test_no_head_is_on_spot_and_every_gpu_is() -> None:
    nodes = _read(CLUSTER)["available_node_types"]
    assert "InstanceMarketOptions" not in nodes["head"]["node_config"]
    assert nodes["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert nodes["gpu"]["node_config"]["InstanceType"].startswith("g")
    profiles = {name: node["node_config"]["IamInstanceProfile"] for name, node in nodes.items()}
    assert profiles.pop("head") == {"Name": "nightjar-head"}
    assert list(profiles.values()) == [{"Name": "nightjar-worker"}] * 2


@cache
def _operations(service: str) -> frozenset[str]:
    """All that the service's API can be asked for."""
    model = botocore.session.get_session().get_service_model(service)
    return frozenset(model.operation_names)


def _actions(statement: dict[str, Any]) -> list[str]:
    found = statement["Action"]
    return [found] if isinstance(found, str) else found


def _demand_known(statement: dict[str, Any]) -> None:
    """Fail when an action of a statement is none, or a pattern."""
    for action in _actions(statement):
        service, _, operation = action.partition(":")
        assert action in _PERMISSIONS_ALONE or operation in _operations(service), action


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_every_policy_is_one_of_known_actions(path: Path) -> None:
    policy = json.loads(path.read_text())
    assert set(policy) == {"Version", "Statement"}
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        keys = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
        assert set(statement) <= keys
        assert statement["Effect"] in ("Allow", "Deny")
        assert "Resource" in statement or path.stem == "trust"
        _demand_known(statement)


def test_an_action_that_is_none_or_a_pattern_would_be_found() -> None:
    for action in ("ec2:DescribeInstance", "ec2:*"):
        with pytest.raises(AssertionError, match=re.escape(action)):
            _demand_known({"Action": action})


def test_the_launcher_may_do_what_rays_launcher_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    asked: set[str] = set()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with mock_aws():
        places = _network()
        boto3.setup_default_session(region_name=_REGION)
        boto3.DEFAULT_SESSION.events.register(
            "before-call",
            lambda model, **_: asked.add(
                f"{model.service_model.endpoint_prefix}:{model.name}",
            ),
        )
        _launch_and_end(_read(CLUSTER, **places))
    assert {"ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"} <= asked
    launcher = json.loads((AWS / "launcher.json").read_text())["Statement"]
    allowed = {action for statement in launcher for action in _actions(statement)}
    assert asked <= allowed
    # nothing else is allowed but what AWS asks for on top: a role may only be given away by name
    assert allowed - asked == {"iam:PassRole"}


def _network() -> dict[str, str]:
    """A network, an image and a profile; what cluster.yaml has for them."""
    ec2 = boto3.client("ec2", region_name=_REGION)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(
            VpcId=vpc, CidrBlock=f"10.0.{part}.0/24", AvailabilityZone=f"{_REGION}{zone}"
        )["Subnet"]["SubnetId"]
        for part, zone in enumerate("ab")
    ]
    for subnet in subnets:
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    group = ec2.create_security_group(GroupName="nightjar", Description="-", VpcId=vpc)["GroupId"]
    ec2.create_key_pair(KeyName="nightjar")
    iam = boto3.client("iam", region_name=_REGION)
    iam.create_role(
        RoleName="nightjar-worker", AssumeRolePolicyDocument=(AWS / "trust.json").read_text()
    )
    iam.create_instance_profile(InstanceProfileName="nightjar-worker")
    iam.add_role_to_instance_profile(
        InstanceProfileName="nightjar-worker", RoleName="nightjar-worker"
    )
    return {
        "SUBNET_1_ID": subnets[0],
        "SUBNET_2_ID": subnets[1],
        "GROUP_ID": group,
        "IMAGE_ID": ec2.describe_images()["Images"][0]["ImageId"],
    }


def _launch_and_end(written: dict[str, Any]) -> None:
    """What `ray up` and the head's autoscaler do of a GPU worker, by their own code."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = prepare_config(written)
    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    assert config["available_node_types"]["gpu"]["resources"]["GPU"] == 1
    config = bootstrap_aws(config)
    provider = AWSNodeProvider(config["provider"], "nightjar")
    node = config["available_node_types"]["gpu"]["node_config"]
    tags = {"ray-node-type": "worker", "ray-node-name": "ray-nightjar-worker"}
    (name,) = provider.create_node(node, tags, 1)
    assert provider.non_terminated_nodes({}) == [name]
    provider.set_node_tags(name, {"ray-node-status": "up-to-date"})
    provider.terminate_node(name)


class _Metadata(BaseHTTPRequestHandler):
    """AWS's metadata service, which at the third question takes the instance back."""

    asked = 0

    def do_PUT(self) -> None:
        self._answer(200, b"token")

    def do_GET(self) -> None:
        type(self).asked += self.headers["X-aws-ec2-metadata-token"] == "token"
        self._answer(200 if type(self).asked > 2 else 404, b"{}")

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def metadata() -> Iterator[str]:
    """The URL of a metadata service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _supervise(service: str, program: str) -> "subprocess.CompletedProcess[str]":
    quick = AWS / "drain_on_notice.py"
    script = (
        f"import runpy, sys; sys.argv = ['', sys.executable, '-c', {program!r}]; "
        f"found = runpy.run_path({str(quick)!r}); "
        "found['main'].__globals__['_EVERY_SECONDS'] = 0.1; sys.exit(found['main'](sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        env={"AWS_EC2_METADATA_SERVICE_ENDPOINT": service},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_node_is_drained_when_aws_takes_it_back(metadata: str) -> None:
    waits = (
        "import signal, sys, time; "
        "signal.signal(signal.SIGTERM, lambda *_: (print('drained'), sys.exit(7))); time.sleep(50)"
    )
    done = _supervise(metadata, waits)
    assert (done.returncode, done.stderr) == (7, "")
    assert "takes this instance back" in done.stdout
    assert "drained" in done.stdout
    assert _Metadata.asked == 3


def test_a_node_that_ends_by_itself_ends_the_watch_and_no_service_is_no_notice() -> None:
    done = _supervise("http://127.0.0.1:1", "import sys, time; time.sleep(0.5); sys.exit(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
