"""Servers of Milvus Lite over gRPC, that go wrong when they are told to, and a proxy before one."""

import contextlib
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import milvus_pb2_grpc

Hand = Callable[[Any, grpc.ServicerContext, Callable[[], Any]], Any]


class Servicer(MilvusServicer):  # type: ignore[misc]
    """Milvus Lite, whose upserts go through a hand: it may do them, answer otherwise, or both."""

    def __init__(self, database: MilvusLite, hand: Hand) -> None:
        super().__init__(database)
        self.hand = hand

    def Upsert(self, request: Any, context: grpc.ServicerContext) -> Any:
        """By the hand."""
        return self.hand(request, context, lambda: MilvusServicer.Upsert(self, request, context))


@contextmanager
def by_hand(directory: Path, hand: Hand) -> Iterator[str]:
    """The URL of a server in this process."""
    database = MilvusLite(str(directory))
    server = grpc.server(
        futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)]
    )
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Servicer(database, hand), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
        database.close()


class Process:
    """A server in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, on the same port and directory as before, and wait until it answers."""
        command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1"]
        command += ["--data-dir", str(self._directory), "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.1)
        raise TimeoutError("the server of Milvus Lite does not answer")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


class Proxy:
    """Passes bytes on, to a server and back."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.left: int | None = None
        """Bytes that go to the server before the connection is cut, once; None for all."""
        self.passes = threading.Event()
        """Whether anything is passed on."""
        self.passes.set()
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self) -> None:
        """Let nobody in any more."""
        self.passes.set()
        # wakes the one that accepts
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _accept(self) -> None:
        pairs = []
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                break
            server = socket.create_connection(("127.0.0.1", self._behind))
            pair = threading.Thread(target=self._pass_on, args=(client, server))
            pair.start()
            pairs.append((pair, client))
        for pair, client in pairs:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            pair.join()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            with contextlib.suppress(OSError):
                while True:
                    for key, _ in ready.select():
                        self.passes.wait()
                        octets = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                        if not octets or (key.data is server and self._is_cut(len(octets))):
                            return
                        key.data.sendall(octets)

    def _is_cut(self, count: int) -> bool:
        if self.left is None:
            return False
        self.left -= count
        if self.left > 0:
            return False
        self.left = None
        return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
