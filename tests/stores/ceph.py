"""Ceph's S3 gateway on the loopback: one monitor, one store in memory, one gateway, no systemd.

Nearer to production than a fake: it checks signatures and evaluates bucket policies, and what is
created once is decided by RADOS. From Debian's packages `radosgw ceph-mon ceph-osd ceph-common`.
"""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stores.loopback import READY_SECONDS, free_port, running, wait_for

DAEMONS = ("ceph-mon", "ceph-osd", "radosgw")
"""What must be installed."""

_CONF = """
[global]
fsid = {fsid}
mon host = {mon}
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {home}/keyring
run dir = {home}
admin socket = {home}/$name.sock
log file = {home}/$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 1
[mon.a]
mon data = {home}/mon
[osd.0]
osd objectstore = memstore
osd data = {home}/osd
keyring = {home}/osd/keyring
memstore device bytes = 1073741824
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{rgw}
"""


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A running gateway and a user that may do everything."""

    endpoint: str
    """Its URL."""
    key: str
    """The user's access key."""
    secret: str
    """And its secret."""
    home: Path
    """Where its cluster lives."""

    def add_user(self, name: str) -> tuple[str, str]:
        """A user that may do nothing yet; its access key and secret."""
        return _add_user(self.home, name)


@contextmanager
def gateway(home: Path) -> Iterator[Gateway]:
    """A gateway whose cluster lives in an empty directory; its processes end with the context."""
    monitor, port = f"[v2:127.0.0.1:{free_port()},v1:127.0.0.1:{free_port()}]", free_port()
    conf = home / "ceph.conf"
    conf.write_text(_CONF.format(fsid=uuid.uuid4(), home=home, mon=monitor, rgw=port))
    with ExitStack() as daemons:
        _make_keys(home)
        _make_monitor(home, monitor)
        daemons.enter_context(_daemon(home, "ceph-mon", "-i", "a"))
        _make_store(home)
        daemons.enter_context(_daemon(home, "ceph-osd", "-i", "0"))
        # it may say what others may
        key, secret = _add_user(home, "nightjar", "--caps=user-policy=*")
        server = daemons.enter_context(_daemon(home, "radosgw", "-n", "client.rgw.a"))
        endpoint = f"http://127.0.0.1:{port}"
        wait_for(endpoint, server)
        yield Gateway(endpoint=endpoint, key=key, secret=secret, home=home)


def missing() -> list[str]:
    """Which programs are not installed."""
    return [name for name in DAEMONS if shutil.which(name) is None]


def _make_keys(home: Path) -> None:
    entities = {
        "mon.": {"mon": "allow *"},
        "client.admin": {"mon": "allow *", "osd": "allow *"},
        "client.rgw.a": {"mon": "allow rw", "osd": "allow rwx"},
    }
    for number, (name, caps) in enumerate(entities.items()):
        rights = [word for pair in caps.items() for word in ("--cap", *pair)]
        create = ["--create-keyring"] if number == 0 else []
        _run(home, "ceph-authtool", *create, "--gen-key", "-n", name, *rights, f"{home}/keyring")


def _make_monitor(home: Path, at: str) -> None:
    _run(home, "monmaptool", "--create", "--addv", "a", at, f"{home}/monmap")
    _run(home, "ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{home}/monmap")


def _make_store(home: Path) -> None:
    identity = str(uuid.uuid4())
    secret = _run(home, "ceph-authtool", "--gen-print-key").strip()
    secrets = home / "osd.json"
    secrets.write_text(json.dumps({"cephx_secret": secret}))
    _run(home, "ceph", "osd", "new", identity, "-i", str(secrets))
    (home / "osd").mkdir()
    (home / "osd/keyring").write_text(f"[osd.0]\nkey = {secret}\n")
    _run(home, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)


def _add_user(home: Path, name: str, *more: str) -> tuple[str, str]:
    key, secret = uuid.uuid4().hex, uuid.uuid4().hex
    keys = [f"--access-key={key}", f"--secret={secret}"]
    named = [f"--uid={name}", f"--display-name={name}"]
    _run(home, "radosgw-admin", "user", "create", *named, *keys, *more)
    return key, secret


def _run(home: Path, program: str, *arguments: str) -> str:
    """The output of a program that ends."""
    done = subprocess.run(
        [program, *arguments],
        env=os.environ | {"CEPH_CONF": f"{home}/ceph.conf"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def _daemon(home: Path, program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    log = home / f"{program}.out"
    with running([program, "-f", *arguments], log, CEPH_CONF=f"{home}/ceph.conf") as process:
        yield process
