"""Requests to a server of Milvus: each is made once, within a time, and told by its codes.

The client of Milvus asks again on its own, for as long as a request may take. What writes and reads
points goes by the messages that it is made of instead, so that a feed alone decides when a store is
asked again.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import grpc
from milvus_lite.server_manager import server_manager_instance
from pymilvus.exceptions import ErrorCode, MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

from pipeline.errors import SpecError, StoreFailed
from pipeline.index.store import Busy, Refused

SECONDS: Final = 60.0
"""That a request may take."""
NOT_LOADED: Final = 101
"""Told of a collection that has to be loaded before it is read."""
_LARGEST = 64 << 20
"""Bytes of a request that a server takes by default."""
_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    # a stream that a proxy has reset
    grpc.StatusCode.INTERNAL,
}
_LIMITED = (ErrorCode.RATE_LIMIT, ErrorCode.FORCE_DENY)
"""Too many requests at once, or a quota of memory or disk that is used up for now."""
_PARAMETER_INVALID = 1100
_PUSHBACK = "grpc-retry-pushback-ms"
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    # a peer that is gone is noticed, and one that is back is found
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


class _Answer(Protocol):
    @property
    def status(self) -> common_pb2.Status:
        """How it went."""


class Wire:
    """A channel to a server."""

    def __init__(self, url: str, secret: str | None) -> None:
        """Connect when it is first used.

        Args:
            url: `http` or `https`, and the database as its path.
            secret: the token.
        """
        parts = urlsplit(url)
        self._database = parts.path.strip("/")
        if parts.scheme == "https":
            address = f"{parts.hostname}:{parts.port or 443}"
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.secure_channel(address, credentials, _OPTIONS)
        else:
            address = f"{parts.hostname}:{parts.port or 19530}"
            self._channel = grpc.insecure_channel(address, _OPTIONS)
        self._stub = milvus_pb2_grpc.MilvusServiceStub(self._channel)
        token = None if secret is None else base64.b64encode(secret.encode())
        self._metadata = () if token is None else (("authorization", token),)

    def upsert(self, collection: str, columns: Sequence[schema_pb2.FieldData], count: int) -> None:
        """Write points.

        Raises:
            Busy: see `VectorStore`.
            Refused: likewise; or they are too large for one request.
        """
        request = milvus_pb2.UpsertRequest(
            db_name=self._database,
            collection_name=collection,
            fields_data=columns,
            num_rows=count,
        )
        if request.ByteSize() > _LARGEST:
            raise Refused(f"a request of {request.ByteSize():,} bytes; Milvus takes {_LARGEST:,}")
        try:
            self._ask(self._stub.Upsert, request)
        except MilvusException as error:
            if not is_refusal(error):
                raise
            raise Refused(error.message) from error

    def delete(self, collection: str, condition: str) -> None:
        """Delete the points that fulfil a condition."""
        request = milvus_pb2.DeleteRequest(
            db_name=self._database, collection_name=collection, expr=condition
        )
        self._ask(self._stub.Delete, request)

    def query(
        self, collection: str, condition: str, names: Sequence[str]
    ) -> Sequence[schema_pb2.FieldData]:
        """Columns of all points that fulfil a condition, or of all points for an empty one."""
        request = milvus_pb2.QueryRequest(
            db_name=self._database,
            collection_name=collection,
            expr=condition,
            output_fields=names,
            consistency_level=common_pb2.Strong,
        )
        return list(self._ask(self._stub.Query, request).fields_data)

    def close(self) -> None:
        """Let go of the channel."""
        self._channel.close()

    def _ask(self, call: Callable[..., _Answer], request: Any) -> Any:
        with told():
            answer = call(request, timeout=SECONDS, metadata=self._metadata)
            if answer.status.code or answer.status.error_code:
                raise MilvusException.from_status(answer.status)
        return answer


def is_refusal(error: MilvusException) -> bool:
    """Whether a request is one that the server will never take."""
    is_wrong = error.compatible_code == common_pb2.IllegalArgument
    return bool(error.is_input_error or is_wrong or error.code == _PARAMETER_INVALID)


@contextmanager
def told() -> Iterator[None]:
    """Tell what may go well later, by codes; whatever else is raised is raised on."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() not in _AGAIN:
            raise
        raise Busy(f"{error.code().name}: {error.details()}", _pushback(error)) from error
    except MilvusException as error:
        # of a connection that was lost the client tells gRPC's own code
        is_lost = isinstance(error.code, grpc.StatusCode)
        is_limited = error.code in _LIMITED or error.compatible_code == common_pb2.RateLimit
        if not (is_lost or is_limited or error.retriable):
            raise
        raise Busy(error.message) from error


def _pushback(error: grpc.RpcError) -> float | None:
    """Seconds that a server, or a proxy before it, asks to wait for."""
    for key, value in error.trailing_metadata() or ():
        if key == _PUSHBACK and str(value).isdigit():
            return int(value) / 1000
    return None


def served(path: str) -> str:
    """Where the file of Milvus Lite with a path is served, by this process."""
    if not path.endswith(".db"):
        raise SpecError(
            f"store.url: {path!r} is neither http://host:port nor a path that ends in .db"
        )
    url = server_manager_instance.start_and_get_uri(path)
    if url is None:
        raise StoreFailed(
            f"store.url: {path!r} cannot be opened; one process at a time holds a file of Milvus "
            "Lite: does another?"
        )
    return str(url)
