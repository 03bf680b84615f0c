"""A server of Qdrant's REST interface on loopback, of what Nightjar asks, on Qdrant's own engine.

The engine is qdrant-edge, the shard of the server as a library: it takes points, filters and
queries as the server does. What lies above a shard is here: names, aliases, metadata, JSON. Answers
of the server's own that go wrong come by `spoil`.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import qdrant_edge as edge

Answer = tuple[int, dict[str, str], dict[str, Any] | str]
"""Status, headers and body; an empty body is none at all: the connection is dropped, as it is after
a body that is shorter than its header says."""
Spoil = Callable[[str, str, Any], Answer | None]
"""Given method, path and body, what is answered in the place of the engine; None for the engine."""
_MOST = 32 << 20
"""Bytes of a request that servers take."""
_TYPES = {
    "float32": edge.VectorStorageDatatype.Float32,
    "float16": edge.VectorStorageDatatype.Float16,
    None: edge.VectorStorageDatatype.Float32,
}


@dataclass
class Shard:
    """A collection."""

    engine: edge.EdgeShard
    directory: Path
    params: dict[str, Any]
    metadata: dict[str, Any]
    indexes: dict[str, str] = field(default_factory=dict)


class Server:
    """The server; `with` starts it and ends it."""

    def __init__(self, root: Path, version: str = "1.20.0", key: str | None = None) -> None:
        self.root = root
        self.version = version
        self.key = key
        self.shards: dict[str, Shard] = {}
        self.aliases: dict[str, str] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.spoil: Spoil = lambda method, path, body: None
        self.lock = threading.RLock()
        self._made = 0
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "Server":
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        for shard in self.shards.values():
            shard.engine.close()

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The result of a request; LookupError, FileExistsError or ValueError for a wrong one."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match method, parts:
            case "GET", [""]:
                return None
            case "GET", ["collections"]:
                return {"collections": [{"name": name} for name in self.shards]}
            case "GET", ["aliases"]:
                return {
                    "aliases": [
                        {"alias_name": alias, "collection_name": name}
                        for alias, name in self.aliases.items()
                    ]
                }
            case "POST", ["collections", "aliases"]:
                return self._change_aliases(body["actions"])
            case "PUT", ["collections", name]:
                return self._create(name, body)
            case "DELETE", ["collections", name]:
                return self._delete(name)
            case _, ["collections", name, *rest]:
                name = self.aliases.get(name, name)
                if name not in self.shards:
                    raise LookupError(f"Not found: Collection `{name}` doesn't exist!")
                return _answer_of(self.shards[name], method, rest, body)
        raise LookupError(path)

    def _create(self, name: str, body: dict[str, Any]) -> bool:
        if name in self.shards or name in self.aliases:
            raise FileExistsError(f"Wrong input: Collection `{name}` already exists!")
        self._made += 1
        directory = self.root / str(self._made)
        directory.mkdir(parents=True)
        engine = edge.EdgeShard.create(str(directory), _config(body["vectors"]))
        self.shards[name] = Shard(engine, directory, body["vectors"], body.get("metadata") or {})
        return True

    def _delete(self, name: str) -> bool:
        shard = self.shards.pop(name, None)
        if shard is not None:
            shard.engine.close()
        self.aliases = {key: led for key, led in self.aliases.items() if led != name}
        return shard is not None

    def _change_aliases(self, actions: list[dict[str, Any]]) -> bool:
        changed = dict(self.aliases)
        for action in actions:
            if "delete_alias" in action:
                changed.pop(action["delete_alias"]["alias_name"], None)
                continue
            alias = action["create_alias"]
            if alias["collection_name"] not in self.shards:
                raise LookupError(alias["collection_name"])
            if alias["alias_name"] in self.shards:
                raise FileExistsError(alias["alias_name"])
            changed[alias["alias_name"]] = alias["collection_name"]
        self.aliases = changed
        return True


def _answer_of(shard: Shard, method: str, rest: list[str], body: Any) -> Any:
    engine = shard.engine
    match method, rest:
        case "GET", []:
            return _info(shard)
        case "PATCH", []:
            for name, change in body["vectors"].items():
                shard.params[name] |= change
            _rebuild(shard)
            return True
        case "PUT", ["index"]:
            kind = body["field_schema"]
            schema = getattr(edge.PayloadSchemaType, kind.capitalize())
            engine.update(edge.UpdateOperation.create_field_index(body["field_name"], schema))
            shard.indexes[body["field_name"]] = kind
            return _COMPLETED
        case "PUT", ["points"]:
            points = [_point(one) for one in body["points"]]
            only = _filter(shard, body.get("update_filter"))
            engine.update(edge.UpdateOperation.upsert_points(points, condition=only))
            return _COMPLETED
        case "POST", ["points", "delete"]:
            chosen = _filter(shard, body["filter"])
            assert chosen is not None
            engine.update(edge.UpdateOperation.delete_points_by_filter(chosen))
            return _COMPLETED
        case "POST", ["points", "count"]:
            asked = edge.CountRequest(
                exact=body["exact"], filter=_filter(shard, body.get("filter"))
            )
            return {"count": engine.count(asked)}
        case "POST", ["points"]:
            records = engine.retrieve(body["ids"], body["with_payload"], body["with_vector"])
            return [_record(one) for one in records]
        case "POST", ["points", "scroll"]:
            page = edge.ScrollRequest(
                offset=body.get("offset"),
                limit=body["limit"],
                with_payload=body["with_payload"],
                with_vector=body["with_vector"],
            )
            records, after = engine.scroll(page)
            return {
                "points": [_record(one) for one in records],
                "next_page_offset": None if after is None else str(after),
            }
        case "POST", ["points", "query"]:
            return {"points": [_hit(one) for one in engine.query(_query(shard, body))]}
    raise LookupError("/".join(rest))


_COMPLETED = {"operation_id": 0, "status": "completed"}


def _info(shard: Shard) -> dict[str, Any]:
    counts = shard.engine.info()
    return {
        "status": "green",
        "optimizer_status": "ok",
        "points_count": counts.points_count,
        "segments_count": counts.segments_count,
        "payload_schema": {
            name: {"data_type": kind, "points": 0} for name, kind in shard.indexes.items()
        },
        "config": {
            "params": {"vectors": shard.params},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "metadata": shard.metadata,
        },
    }


def _config(params: dict[str, Any]) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={name: _vector(one) for name, one in params.items()},
        # as soon as there is a kilobyte
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1),
        wal_enabled=False,
        max_search_threads=1,
    )


def _rebuild(shard: Shard) -> None:
    """Have the indexes that the parameters ask for; a server does it by and by."""
    shard.engine.flush()
    shard.engine.close()
    shard.engine = edge.EdgeShard.load(str(shard.directory), _config(shard.params))
    shard.engine.optimize()


def _vector(params: dict[str, Any]) -> edge.EdgeVectorParams:
    hnsw = {"ef_construct": 100, "full_scan_threshold": 10_000} | (
        params.get("hnsw_config") or {"m": 16}
    )
    many = params.get("multivector_config")
    return edge.EdgeVectorParams(
        size=params["size"],
        distance=getattr(edge.Distance, params["distance"]),
        datatype=_TYPES[params.get("datatype")],
        hnsw_config=edge.HnswIndexConfig(**hnsw),
        multivector_config=many
        and edge.MultiVectorConfig(
            {"max_sim": edge.MultiVectorComparator.MaxSim}[many["comparator"]]
        ),
    )


def _point(point: dict[str, Any]) -> edge.Point:
    for vector in point["vector"].values():
        if isinstance(vector[0], list) and len(vector) * len(vector[0]) > 1 << 20:
            # validated by the server, above its shards
            raise ValueError("multivector must not have more than 1048576 numbers")
    return edge.Point(point["id"], point["vector"], point["payload"])


def _record(record: edge.Record) -> dict[str, Any]:
    return {"id": str(record.id), "payload": record.payload, "vector": record.vector}


def _hit(point: edge.ScoredPoint) -> dict[str, Any]:
    return {
        "id": str(point.id),
        "version": point.version,
        "score": point.score,
        "payload": point.payload,
    }


def _query(shard: Shard, body: dict[str, Any]) -> edge.QueryRequest:
    return edge.QueryRequest(
        limit=body["limit"],
        query=edge.Query.Nearest(body["query"]["nearest"], using=body["using"]),
        filter=_filter(shard, body.get("filter")),
        params=edge.SearchParams(exact="params" in body and body["params"]["exact"]),
        with_payload=body["with_payload"],
        with_vector=False,
    )


def _filter(shard: Shard, body: dict[str, Any] | None) -> edge.Filter | None:
    if body is None:
        return None
    assert body.keys() <= {"must", "should"}
    return edge.Filter(
        must=[_condition(shard, one) for one in body["must"]] if "must" in body else None,
        should=[_condition(shard, one) for one in body["should"]] if "should" in body else None,
    )


def _condition(shard: Shard, body: dict[str, Any]) -> Any:
    if "has_id" in body:
        return edge.HasIdCondition(set(body["has_id"]))
    if "key" not in body:
        return _filter(shard, body)
    key = body["key"]
    if "range" in body:
        bounds = body["range"]
        is_time = any(isinstance(bound, str) for bound in bounds.values())
        kind = edge.RangeDateTime if is_time else edge.RangeFloat
        return edge.FieldCondition(key, range=kind(**bounds))
    match = body["match"]
    if "any" in match:
        return edge.FieldCondition(key, match=edge.MatchAny(match["any"]))
    if "except" in match:
        return edge.FieldCondition(key, match=edge.MatchExcept(match["except"]))
    if isinstance(match["value"], bool):
        return _has_truth(shard, key, match["value"])
    return edge.FieldCondition(key, match=edge.MatchValue(match["value"]))


def _has_truth(shard: Shard, key: str, value: bool) -> edge.HasIdCondition:
    # the library's Python takes True for 1, and so never finds it
    records, _ = shard.engine.scroll(edge.ScrollRequest(limit=1_000_000, with_payload=[key]))
    return edge.HasIdCondition(
        {str(one.id) for one in records if (one.payload or {}).get(key) is value}
    )


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            body = json.loads(sent) if sent else None
            with server.lock:
                server.requests.append((self.command, path, body))
            if len(sent) > _MOST:
                self._give((413, {}, {"status": {"error": "Payload too large"}}))
            elif server.key is not None and self.headers.get("api-key") != server.key:
                self._give((401, {}, {"status": {"error": "Must provide an API key"}}))
            else:
                self._give(server.spoil(self.command, path, body) or self._asked(path, body))

        def _asked(self, path: str, body: Any) -> Answer:
            try:
                with server.lock:
                    result = server.answer(self.command, path, body)
            except LookupError as error:
                return 404, {}, {"status": {"error": str(error)}}
            except FileExistsError as error:
                return 409, {}, {"status": {"error": str(error)}}
            except Exception as error:
                # the engine raises nothing more particular
                return 400, {}, {"status": {"error": f"Wrong input: {error}"}}
            if path == "/":
                return 200, {}, {"title": "qdrant", "version": server.version}
            return 200, {}, {"result": result, "status": "ok", "time": 0.0}

        def _give(self, answer: Answer) -> None:
            status, headers, body = answer
            if not body:
                self.close_connection = True
                return
            told = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.close_connection = "Content-Length" in headers
            if not self.close_connection:
                self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _do

    return Handler
