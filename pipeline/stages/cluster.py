"""Cluster: to which Ray, and with what.

Always an explicit address, since an implicit one can join somebody else's cluster on the same
machine. A cluster we start ourselves is for this process alone: it asks for a token that exists
only in this process's environment, and it ends with it.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray
from ray.data import DataContext
from ray.data.context import ShuffleStrategy
from ray.exceptions import RayError

from pipeline.errors import HeadLost, RunError, SpecError
from pipeline.stages.capacity import HEAD, Capacity, capacity

LOCAL = "local"
_CONNECT_SECONDS = 10.0
_ATTEMPTS = 3
"""At Ray Client, whose server starts a process for each client and gives it 30 seconds: too few on
a head that is busy."""
_IDLE_MS = 60_000
"""For which a raylet keeps a worker that has nothing to do. With its own second, tasks that come in
bursts start processes, of several seconds each, over and over; infra/image sets it likewise."""
_RESERVED_SECONDS = 30
"""For which Ray Data keeps a driver's share of the cluster; a living one asks again every 10. With
its own 180, the run after one that was killed would crawl for as long."""
ON_HEAD: Mapping[str, Any] = {"num_cpus": 0, "resources": {HEAD: 0.001}}
"""What places something on the cluster's head: any other node may be lost."""
_HEAD_SECONDS = 20.0
"""For which a head that refuses a connection is tried again. Ray ends a driver after 60, with no
word that a user could read."""
_EAGER, _NEVER = 0.01, -1.0
"""Shares of a pool's slots that are in use, from which on it grows, and below which it shrinks."""
_BLOCK_BYTES, _DIVIDED_BYTES = 128 << 20, 64 << 20
"""Of a block of many small rows, and of those that one task divides by key."""
_LOUD = ("ray", "ray.data.context", "ray.data.dataset", "ray.data.exceptions", "ray.data._internal")
"""Loggers whose lines are for Ray's developers; `ray.data` itself is set up anew by Ray."""


@contextmanager
def connected(address: str) -> Iterator[Capacity]:
    """A connection to Ray, closed afterwards, or with the process where that is interrupted.

    Args:
        address: `local` to start one, `auto` for the one on this host, or `ray://host:port`.

    Raises:
        SpecError: not an address.
        RunError: no Ray answers there.
    """
    if address not in (LOCAL, "auto") and ":" not in address:
        raise SpecError(
            f"--address: {address!r} is not one of local, auto, none, ray://host:port or host:port"
        )
    _demand_listener(address)
    for name in _LOUD:
        # what fails is told by the exception, in our words
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if address == LOCAL:
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(_IDLE_MS))
    if address == LOCAL and "RAY_AUTH_MODE" not in os.environ:
        # Ray turns its token on for a local cluster; with one here it writes none to the home
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Ray prints what its raylets say to standard output, which is for the account of the run
    with _native_noise_aside(), redirect_stdout(sys.stderr):
        with _signals_kept():
            _initialise(address)
        try:
            yield capacity()
        except KeyboardInterrupt:
            # its work goes on in a thread, and Ray that is let go of in the midst of work may take
            # the process along: it is let go of at the end, when all has been said and written
            raise
        except BaseException:
            ray.shutdown()
            raise
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back what SIGTERM does: Ray takes it over, and ends the process at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _initialise(address: str) -> None:
    for left in reversed(range(_ATTEMPTS)):
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({"include_dashboard": False} if address == LOCAL else {}),
            )
            return
        except (ConnectionError, RayError, RuntimeError, ValueError) as error:
            # what the server of Ray Client says when it could not start our process
            if isinstance(error, ConnectionAbortedError) and left:
                continue
            raise RunError(f"no Ray answers at {address!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """In one line; of a traceback that was sent to us, what it ends with."""
    first, *rest = str(error).strip().splitlines()
    return f"{first} {rest[-1]}" if rest and first.endswith(":") else first


def demand_head() -> None:
    """Fail when the cluster that we are connected to is gone.

    Raises:
        HeadLost: nobody listens where its head was.
    """
    address = ray.get_runtime_context().gcs_address
    deadline = time.monotonic() + _HEAD_SECONDS
    while True:
        try:
            _knock(address)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise HeadLost(
                    f"the head of the cluster, {address}, does not answer any more ({error}); "
                    "nothing was committed; the same command goes on from here in any cluster"
                ) from error
        time.sleep(1)


def free_resources() -> str:
    """What of the cluster nobody holds, in words."""
    free, there = ray.available_resources(), ray.cluster_resources()
    parts = (f"{free.get(n, 0.0):g} of {there.get(n, 0.0):g} {n}s" for n in ("CPU", "GPU"))
    return f"{' and '.join(parts)} of the cluster are free"


def _demand_listener(address: str) -> None:
    """Fail at once where nobody listens; Ray itself would try for minutes."""
    if address in (LOCAL, "auto"):
        return
    try:
        _knock(address.rpartition("://")[2])
    except (OSError, ValueError) as error:
        raise RunError(f"no Ray answers at {address!r}: {error}") from error


def _knock(address: str) -> None:
    """Connect to a host:port and hang up.

    Raises:
        OSError: nobody listens there.
        ValueError: the port is no number.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


@contextmanager
def _native_noise_aside() -> Iterator[None]:
    """Keep what Ray's native code writes to standard error in a file, which a failed run names.

    It writes to file descriptor 2 past every Python setting, lines that no user can act on.
    """
    python_side = os.fdopen(os.dup(2), "w", buffering=1)
    native, kept = os.dup(2), sys.stderr
    with tempfile.NamedTemporaryFile(prefix="nightjar-ray-", suffix=".log", delete=False) as log:
        os.dup2(log.fileno(), 2)
    if kept is sys.__stderr__:
        sys.stderr = python_side
    try:
        yield
    except RunError:
        if os.path.getsize(log.name):
            print(f"Ray's own messages are in {log.name}", file=python_side)
        else:
            os.unlink(log.name)
        raise
    except BaseException:
        os.unlink(log.name)
        raise
    else:
        os.unlink(log.name)
    finally:
        sys.stderr = kept
        os.dup2(native, 2)
        os.close(native)
        python_side.close()


def configure_data() -> None:
    """Settings of Ray Data for every execution of ours."""
    # Ray Data has no other way to say it, and reads it when the first execution begins
    os.environ.setdefault("RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S", str(_RESERVED_SECONDS))
    context = DataContext.get_current()
    # a unit travels as one row, so each block is sent on as soon as it has one
    context.target_max_block_size = 1
    context.execution_options.preserve_order = False
    # a lost block is lost rows: never allowed
    context.max_errored_blocks = 0
    context.enable_fallback_to_arrow_object_ext_type = False
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # a pool takes all free devices at once, not one after another as each has loaded the model; and
    # it keeps what it has while units are to come: a moment without any is not worth a model
    context.autoscaling_config.actor_pool_util_upscaling_threshold = _EAGER
    context.autoscaling_config.actor_pool_util_downscaling_threshold = _NEVER


@contextmanager
def dividing() -> Iterator[None]:
    """Settings of Ray Data within which many small rows are divided by a key."""
    configure_data()
    context = DataContext.get_current().copy()
    context.target_max_block_size = _BLOCK_BYTES
    context.shuffle_strategy = ShuffleStrategy.SHUFFLE_V2
    # Ray's own default, a GiB, hangs nodes with less of an object store than a few of those
    context.shuffle_input_batch_bytes = _DIVIDED_BYTES
    # hashes do not shrink
    context.shuffle_compression = "none"
    with DataContext.current(context):
        yield
