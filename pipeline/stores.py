"""How to reach an object store: its endpoint, and who we are there.

What is not said here is left to the store's own client: the usual environment, its configuration
files, the role of the machine.
"""

import json
import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic import model_validator as validate_model
from pydantic_core import PydanticCustomError

from pipeline.credentials import REFERENCE, resolve
from pipeline.section import Section

_ONLY = {
    "region": ("s3",),
    "path_style": ("s3",),
    "secret": ("s3",),
    "project": ("gs",),
    "account": ("abfs",),
    "token": ("s3", "abfs"),
}
"""Keys that mean something to some protocols alone."""
_SECRETS = ("key", "secret", "token")
_BY_REFERENCE = "env:NAME or file:PATH, which name a secret; it is not written here itself"


class StoreSpec(Section):
    """One store, or a part of one."""

    uri: str = Field(
        pattern=r"^(s3|gs|abfs)://[^@]*(@[^:@]*)?$",
        description="the URL at and below which all are reached so: s3://, s3://bucket, gs://, ...",
    )
    endpoint: str | None = Field(
        None, description="URL of a store that is not the provider's own, or null"
    )
    region: str | None = Field(None, description="the region of an S3 store, or null")
    path_style: bool = Field(
        False, description="true for S3 stores whose buckets are paths and not host names"
    )
    project: str | None = Field(None, description="the project of a gs:// store, or null")
    account: str | None = Field(None, description="the account of an abfs:// store, or null")
    key: str | None = Field(
        None,
        description=f"S3's access key id, gs's service account key as JSON, abfs's account key: "
        f"{_BY_REFERENCE}",
    )
    secret: str | None = Field(None, description=f"S3's secret access key: {_BY_REFERENCE}")
    token: str | None = Field(
        None, description=f"S3's session token, or abfs's shared access signature: {_BY_REFERENCE}"
    )
    anonymous: bool = Field(False, description="true to be nobody there")

    @property
    def protocol(self) -> str:
        """`s3`, `gs` or `abfs`."""
        return self.uri.partition("://")[0]

    def reaches(self, uri: str) -> bool:
        """Whether a URL is this one, or below it: `s3://bucket` has no say in `s3://bucket-b`."""
        root = self.uri.rstrip("/")
        return uri == root or uri.startswith(f"{root}/")

    def options(self) -> dict[str, Any]:
        """What fsspec's file system of the protocol is made with, the secrets resolved.

        Raises:
            SpecError: a secret is not there, in this process.
        """
        secrets = {name: getattr(self, name) for name in _SECRETS}
        found = {name: resolve(named) for name, named in secrets.items() if named is not None}
        make = {"s3": self._s3, "gs": self._gs, "abfs": self._abfs}[self.protocol]
        return {name: value for name, value in make(found).items() if value is not None}

    def _s3(self, secrets: dict[str, str]) -> dict[str, Any]:
        return {
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": self.region} if self.region else None,
            "config_kwargs": {"s3": {"addressing_style": "path"}} if self.path_style else None,
            "anon": self.anonymous or None,
            **secrets,
        }

    def _gs(self, secrets: dict[str, str]) -> dict[str, Any]:
        key = json.loads(secrets["key"]) if "key" in secrets else None
        return {
            "endpoint_url": self.endpoint,
            "project": self.project,
            "token": "anon" if self.anonymous else key,
        }

    def _abfs(self, secrets: dict[str, str]) -> dict[str, Any]:
        key, signature = secrets.get("key"), secrets.get("token")
        if self.endpoint is not None:
            # its client takes another endpoint in no other form
            parts = {
                "BlobEndpoint": self.endpoint,
                "AccountName": self.account,
                "AccountKey": key,
                "SharedAccessSignature": signature,
            }
            text = ";".join(f"{name}={value}" for name, value in parts.items() if value)
            return {"connection_string": text, "account_name": self.account}
        return {
            "account_name": self.account,
            "account_key": key,
            "sas_token": signature,
            "anon": self.anonymous or None,
        }

    @field_validator(*_SECRETS, mode="before")
    @classmethod
    def _is_a_reference(cls, value: object) -> object:
        if value is not None and not (isinstance(value, str) and REFERENCE.fullmatch(value)):
            # whatever it is, it may be the secret itself: it is not shown
            raise PydanticCustomError("field", f"expected {_BY_REFERENCE}")
        return value

    @field_validator("uri")
    @classmethod
    def _is_without_password(cls, value: str) -> str:
        if has_password(value):
            raise PydanticCustomError("field", "there is a password in the URL; name it as secret")
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_a_plain_url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise PydanticCustomError(
                    "field", "expected http:// or https:// with a host, and no credentials"
                )
        return value

    @validate_model(mode="after")
    def _fits_its_protocol(self) -> "StoreSpec":
        for name, protocols in _ONLY.items():
            if name in self.model_fields_set and self.protocol not in protocols:
                raise ValueError(
                    f"{name}: means nothing for {self.protocol}://, only for "
                    f"{' and '.join(f'{p}://' for p in protocols)}"
                )
        if (self.secret is None) != (self.key is None) and self.protocol == "s3":
            raise ValueError("key and secret of an S3 store go together: name both, or neither")
        if self.anonymous and any(getattr(self, name) for name in _SECRETS):
            raise ValueError("anonymous: true, but a key, secret or token is named as well")
        return self


def has_password(text: str) -> bool:
    """Whether a URL, or what begins like one, holds a user's password."""
    # a password may hold slashes; a colon before nothing but digits is that of a port
    return re.match(r"[^/]+://[^/@\[]*:(?!\d{1,5}(/|$))[^@]*@", text) is not None
