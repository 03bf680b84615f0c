"""The roles of infra/policies/, as users of servers that enforce their policies."""

import json
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.stores.ceph import Gateway

POLICIES = Path(__file__).parents[2] / "infra/policies"
ROLES = ("reader", "embedder", "publisher", "collector")
_ALL = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass(frozen=True, kw_only=True)
class Lake:
    """A bucket with a source and a place for a dataset, and who may do what there."""

    bucket: str
    """Its name."""
    endpoint: str
    """URL of its store."""
    keys: dict[str, tuple[str, str]]
    """Access key and secret of each role, and of `owner`, who may do everything."""

    @property
    def source(self) -> str:
        """URL of the source."""
        return f"s3://{self.bucket}/docs"

    @property
    def output(self) -> str:
        """URL of the dataset."""
        return f"s3://{self.bucket}/embeddings/docs"


def read_policy(name: str, bucket: str) -> dict[str, Any]:
    """A policy of that name, with the places of a lake in it."""
    text = (POLICIES / f"{name}.json").read_text()
    # the longer names first, since they hold the others
    for word, value in {
        "SOURCE_BUCKET": bucket,
        "SOURCE_PREFIX": "docs",
        "BUCKET": bucket,
        "PREFIX": "embeddings/docs",
    }.items():
        text = text.replace(word, value)
    found: dict[str, Any] = json.loads(text)
    return found


@contextmanager
def moto_lake(bucket: str, endpoint: str) -> Iterator[Lake]:
    """A lake of the fake S3, which checks signatures and policies while it is open.

    It takes any condition in a user's policy for one that is not met, so they are left out, and
    knows an action for HEAD, which S3 and its policies take for s3:GetObject.
    """
    iam = boto3.client("iam", endpoint_url=endpoint)

    def add(name: str, policy: dict[str, Any]) -> tuple[str, str]:
        user = f"{name}-{uuid.uuid4().hex}"
        iam.create_user(UserName=user)
        document = json.dumps(policy | {"Statement": [_plainly(s) for s in policy["Statement"]]})
        iam.put_user_policy(UserName=user, PolicyName=name, PolicyDocument=document)
        made = iam.create_access_key(UserName=user)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    lake = Lake(bucket=bucket, endpoint=endpoint, keys=_users(bucket, add))
    before = _enforce_after(endpoint, "0")
    try:
        yield lake
    finally:
        _enforce_after(endpoint, before)


def rgw_lake(gateway: Gateway) -> Lake:
    """A lake of Ceph's, which evaluates the policies whole."""
    name = f"nightjar-{uuid.uuid4().hex[:12]}"
    keys = {
        "endpoint_url": gateway.endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": gateway.key,
        "aws_secret_access_key": gateway.secret,
    }
    boto3.client("s3", **keys).create_bucket(Bucket=name)
    iam = boto3.client("iam", **keys)

    def add(role: str, policy: dict[str, Any]) -> tuple[str, str]:
        user = f"{role}-{uuid.uuid4().hex}"
        found = gateway.add_user(user)
        iam.put_user_policy(UserName=user, PolicyName=role, PolicyDocument=json.dumps(policy))
        return found

    return Lake(bucket=name, endpoint=gateway.endpoint, keys=_users(name, add))


def _users(
    bucket: str, add: Callable[[str, dict[str, Any]], tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    policies = {role: read_policy(role, bucket) for role in ROLES} | {
        "owner": {"Version": "2012-10-17"} | _ALL
    }
    return {name: add(name, policy) for name, policy in policies.items()}


def _plainly(statement: dict[str, Any]) -> dict[str, Any]:
    """A statement as moto understands it."""
    actions = statement["Action"]
    actions = [actions] if isinstance(actions, str) else actions
    head = ["s3:HeadObject"] if "s3:GetObject" in actions else []
    kept = {key: value for key, value in statement.items() if key != "Condition"}
    return kept | {"Action": actions + head}


def _enforce_after(endpoint: str, requests: str) -> str:
    """How many requests moto answers without asking who sent them; returns how many it did."""
    plain = {"Content-Type": "text/plain"}
    url = f"{endpoint}/moto-api/reset-auth"
    request = urllib.request.Request(url, requests.encode(), plain)
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["PREVIOUS_INITIAL_NO_AUTH_ACTION_COUNT"])
