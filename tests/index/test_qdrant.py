"""Qdrant: what only it has, asked by REST of its own engine, and of the engine in its client."""

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from qdrant_client import QdrantClient, models

from pipeline.errors import CollectionError, SpecError, StoreFailed
from pipeline.index.connect import connected
from pipeline.index.exact import ExactSearch
from pipeline.index.filters import Comparison, Condition, OneOf, parse_filter
from pipeline.index.layout import (
    MULTI,
    POINT,
    RUN,
    SINGLE,
    STAMP,
    TEXT,
    TIME,
    WHOLE,
    Layout,
    VectorType,
)
from pipeline.index.rows import Rows, Snapshot
from pipeline.index.scoring import maxsim
from pipeline.index.spec import VectorStoreSpec
from pipeline.index.store import Busy, Question, Refused
from pipeline.index.stores import qdrant, qdrant_reached
from pipeline.index.stores.qdrant import Qdrant
from pipeline.index.typed import typed
from tests.index.conftest import Place
from tests.index.corpus import Corpus, names
from tests.index.qdrant_server import Answer, Server


@pytest.fixture
def kind() -> str:
    return "qdrant"


@pytest.fixture(params=["server", "engine"])
def store(request: pytest.FixtureRequest) -> Iterator[Qdrant]:
    """An empty one of either sort."""
    is_server = request.param == "server"
    url = request.getfixturevalue("qdrant_server").url if is_server else ":memory:"
    opened = Qdrant(url, None)
    yield opened
    opened.close()


def _layout(**keys: Any) -> Layout:
    whole: dict[str, Any] = {
        "single": VectorType(size=4, dtype="float32"),
        "multi": None,
        "payload": (("id", TEXT),),
        "indexed": (),
        "approximate": False,
    }
    return Layout(**whole | keys)


def _points(layout: Layout, rows: list[dict[str, Any]]) -> pa.Table:
    """Points 0, 1, 2, with what is given; everything else is the same."""
    same: dict[str, Any] = {STAMP: 1, RUN: 1}
    if layout.single is not None:
        same[SINGLE] = [1.0] + [0.0] * (layout.single.size - 1)
    return pa.Table.from_pylist(
        [
            {POINT: uuid.UUID(int=at).bytes, "id": str(at)} | same | row
            for at, row in enumerate(rows)
        ],
        layout.schema,
    )


def _found(store: Qdrant, layout: Layout, condition: Condition) -> list[str]:
    asked = np.eye(1, 4, dtype=np.float32)
    question = Question(using=SINGLE, vectors=asked, most=100, condition=condition)
    return sorted(hit.payload["id"] for hit in store.search("docs_1", layout, question))


def _written(server: Server) -> list[list[str]]:
    """The ids of the points of each request that wrote some."""
    return [
        [point["payload"]["id"] for point in body["points"]]
        for method, path, body in server.requests
        if (method, path) == ("PUT", "/collections/docs_1/points")
    ]


def _is_write(method: str, path: str) -> bool:
    return method == "PUT" and path.endswith("/points")


def test_the_payload_is_typed_and_indexed_before_the_first_point(
    place: Place, corpus: Corpus, qdrant_server: Server
) -> None:
    corpus.add(names(5))
    corpus.add(["none"], title=None, seen=None)
    indexed = ["title", "year", "weight", "draft", "seen"]
    place.with_keys(index=indexed).fill(corpus.commit())
    shard = qdrant_server.shards["docs_1"]
    assert shard.indexes == {
        "title": "keyword",
        "year": "integer",
        "weight": "float",
        "draft": "bool",
        "seen": "datetime",
        "nightjar_run": "integer",
    }
    assert shard.engine.info().payload_schema.keys() == shard.indexes.keys()
    made = [f"{method} {path.split('/')[-1]}" for method, path, _ in qdrant_server.requests]
    assert max(n for n, one in enumerate(made) if one == "PUT index") < made.index("PUT points")
    ((_, _, body),) = [one for one in qdrant_server.requests if _is_write(*one[:2])]
    assert not {"title", "seen"} & body["points"][-1]["payload"].keys()
    row = corpus.living()[0]
    point = next(one for one in body["points"] if one["payload"]["id"] == row["id"])
    assert uuid.UUID(point["id"]).version == 5
    assert {key: point["payload"][key] for key in ("year", "weight", "draft")} == {
        key: row[key] for key in ("year", "weight", "draft")
    }
    assert point["payload"]["seen"] == row["seen"].isoformat() + ".000000Z"


def test_vectors_are_compared_and_kept_as_the_layout_says(qdrant_server: Server) -> None:
    half = VectorType(size=4, dtype="float16")
    with connected(_spec(qdrant_server.url)) as store:
        store.create("docs_1", _layout(single=half, multi=half), "owner")
        store.create("docs_2", _layout(single=None, multi=half), "owner")
    assert qdrant_server.shards["docs_1"].params == {
        "single": {
            "size": 4,
            "distance": "Cosine",
            "datatype": "float16",
            "hnsw_config": {"m": 0},
        },
        "multi": {
            "size": 4,
            "distance": "Dot",
            "datatype": "float32",
            "hnsw_config": {"m": 0},
            "multivector_config": {"comparator": "max_sim"},
        },
    }
    assert list(qdrant_server.shards["docs_2"].params) == ["multi"]


def test_its_own_engine_scores_vectors_of_half_precision_as_we_do(store: Qdrant) -> None:
    layout = _layout(
        single=VectorType(size=2048, dtype="float16"), multi=VectorType(size=128, dtype="float16")
    )
    random = np.random.default_rng(0)

    def unit(count: int, size: int) -> Any:
        vectors = random.standard_normal((count, size)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    lengths = random.integers(1, 60, 80)
    multis = [unit(length, 128).astype(np.float16) for length in lengths]
    singles = unit(80, 2048).astype(np.float16)
    rows = [{SINGLE: one, MULTI: list(many)} for one, many in zip(singles, multis, strict=True)]
    store.create("docs_1", layout, "owner")
    for _ in range(2):
        store.load("docs_1", _points(layout, rows))
    assert store.count("docs_1") == 80
    queries = {SINGLE: unit(1, 2048), MULTI: unit(30, 128)}
    wanted = {
        SINGLE: singles.astype(np.float32) @ queries[SINGLE][0],
        MULTI: maxsim(queries[MULTI], np.concatenate(multis), lengths),
    }
    for using, query in queries.items():
        question = Question(using=using, vectors=query, most=80)  # type: ignore[arg-type]
        hits = store.search("docs_1", layout, question)
        order = [int(hit.payload["id"]) for hit in hits]
        assert sorted(order) == list(range(80))
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(scores, wanted[using][order], rtol=0, atol=1e-4)


FILTERS = [
    "weight == 0.5",
    "weight != 0.5",
    "weight in [0.5, 1.0]",
    "weight not in [0.5, 1.0]",
    "draft == False",
    "draft != True",
    "draft in [True, False]",
    "not draft",
    "year in [2003, 2004]",
    "not year in [2003, 2004]",
    'seen in ["2024-01-15T06:00Z", "2024-02-01"]',
    'seen not in ["2024-01-15T06:00Z", "2024-02-01"]',
    'not (seen <= "2024-01-15T07:00+01:00" or year > 2010)',
    'title == "a" or not (draft and weight < 1)',
]


def test_filters_mean_what_they_do_over_the_snapshot(place: Place, corpus: Corpus) -> None:
    corpus.add(names(40))
    corpus.add(names(10, "null"), title=None, year=None, weight=None, draft=None, seen=None)
    snapshot = corpus.commit()
    layout = place.layout(snapshot)
    exact, query = ExactSearch(snapshot), corpus.living()[0]["embedding"][None]
    place.fill(snapshot)
    with connected(_spec(":memory:")) as engine:
        place.with_keys(collection="other").fill(snapshot, engine)
        for text in FILTERS:
            condition = typed(parse_filter(text), dict(layout.payload))
            question = Question(using=SINGLE, vectors=query, most=100, condition=condition)
            wanted = sorted(hit.payload["id"] for hit in exact.search(question))
            for store, name in ((place.store, "docs_1"), (engine, "other_1")):
                found = [hit.payload["id"] for hit in store.search(name, layout, question)]
                assert sorted(found) == wanted, text


def test_columns_of_any_name_are_found(store: Qdrant) -> None:
    payload = (("id", TEXT), ("a.b", TEXT), ("größe[]", WHOLE), ("c-d", WHOLE))
    layout = _layout(payload=payload, indexed=("a.b", "größe[]", "c-d"))
    store.create("docs_1", layout, "owner")
    rows: list[dict[str, Any]] = [{"a.b": "x", "größe[]": 7, "c-d": 1}, {"a.b": "y"}]
    store.load("docs_1", _points(layout, rows))
    for column, value in (("a.b", "x"), ("größe[]", 7), ("c-d", 1)):
        condition = Comparison(column=column, operator="==", value=value)
        assert _found(store, layout, condition) == ["0"]
    with pytest.raises(SpecError, match="quotation mark"):
        _found(store, layout, Comparison(column='"', operator="==", value="x"))


def test_whole_numbers_are_told_apart_to_the_last_bit_or_not_compared(store: Qdrant) -> None:
    layout = _layout(payload=(("id", TEXT), ("n", WHOLE)), indexed=("n",))
    store.create("docs_1", layout, "owner")
    store.load("docs_1", _points(layout, [{"n": 2**62}, {"n": 2**62 + 1}, {}]))

    def compared(operator: Any, value: int) -> list[str]:
        return _found(store, layout, Comparison(column="n", operator=operator, value=value))

    assert compared("==", 2**62 + 1) == ["1"]
    assert compared("!=", 2**62 + 1) == ["0"]
    assert compared(">", 2**53 - 1) == ["0", "1"]
    assert _found(store, layout, OneOf(column="n", values=(2**62,), is_negated=True)) == ["1"]
    with pytest.raises(SpecError, match=r"up to 2\*\*53 alone"):
        compared(">", 2**62)
    with pytest.raises(SpecError, match="does not order texts"):
        _found(store, layout, Comparison(column="id", operator="<", value="x"))


def _filled(place: Place, corpus: Corpus, count: int = 30) -> Snapshot:
    corpus.add(names(count))
    snapshot = corpus.commit()
    place.fill(snapshot)
    return snapshot


def _all(place: Place, snapshot: Snapshot, run: int = 1) -> pa.Table:
    layout = place.layout(snapshot)
    return pa.concat_tables(
        snapshot.points([Rows(part=part)], layout, run, None).table for part in snapshot.parts
    )


_TOLD = {"status": {"error": "not now"}}


@pytest.mark.parametrize(
    ("answer", "kind_of_error", "retry_after"),
    [
        ((429, {"Retry-After": "7"}, _TOLD), Busy, 7.0),
        ((429, {}, _TOLD), Busy, None),
        ((429, {"Retry-After": "Fri, 27 Nov 2026 10:00:00 GMT"}, _TOLD), Busy, None),
        ((503, {"Retry-After": "3"}, _TOLD), Busy, 3.0),
        ((503, {}, _TOLD), Busy, None),
        ((500, {}, _TOLD), Busy, None),
        ((200, {}, {"result": {"operation_id": 1, "status": "acknowledged"}}), Busy, None),
        ((200, {"Content-Length": "1000"}, {"half": "an answer"}), Busy, None),
        ((200, {}, "<html>"), Busy, None),
        ((200, {}, {}), Busy, None),
        ((400, {}, _TOLD), Refused, None),
        ((413, {}, _TOLD), Refused, None),
        ((422, {}, _TOLD), Refused, None),
        ((403, {}, _TOLD), StoreFailed, None),
    ],
)
def test_answers_are_told_by_their_status(
    qdrant_server: Server,
    answer: Answer,
    kind_of_error: type[Exception],
    retry_after: float | None,
) -> None:
    layout = _layout()
    table = _points(layout, [{}, {}])
    store = Qdrant(qdrant_server.url, None)
    store.create("docs_1", layout, "owner")
    qdrant_server.spoil = lambda method, path, body: answer if "points" in path else None
    calls: list[Callable[[], object]] = [
        lambda: store.load("docs_1", table),
        lambda: store.upsert("docs_1", table),
        lambda: store.delete("docs_1", table[POINT].combine_chunks(), 1),
    ]
    for call in calls:
        with pytest.raises(kind_of_error) as raised:
            call()
        assert getattr(raised.value, "retry_after", None) == retry_after
    store.close()


def test_an_answer_that_does_not_come_is_waited_for_only_so_long(
    place: Place, corpus: Corpus, qdrant_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _filled(place, corpus)
    monkeypatch.setattr(qdrant_reached, "_TIMEOUT", 1)

    def slow(method: str, path: str, _: Any) -> Answer | None:
        if path.endswith("/count"):
            time.sleep(1.5)
        return None

    store = Qdrant(qdrant_server.url, None)
    qdrant_server.spoil = slow
    with pytest.raises(Busy, match="ReadTimeout"):
        store.count("docs_1")
    store.close()


def test_a_server_that_is_busy_refuses_and_hangs_up_is_filled_all_the_same(
    place: Place, corpus: Corpus, qdrant_server: Server
) -> None:
    corpus.add(names(120))
    snapshot = corpus.commit()
    tries: list[int] = []

    def spoil(method: str, path: str, body: Any) -> Answer | None:
        if not _is_write(method, path):
            return None
        if any(point["payload"]["id"] == "doc-77" for point in body["points"]):
            return 400, {}, {"status": {"error": "Wrong input: doc-77"}}
        tries.append(len(body["points"]))
        match len(tries) % 5:
            case 1:
                return 429, {"Retry-After": "0"}, _TOLD
            case 2:
                return 503, {"Retry-After": "0"}, _TOLD
            case 3:
                # it is done, and the answer is lost
                with qdrant_server.lock:
                    qdrant_server.answer(method, path, body)
                return 200, {}, {}
        return None

    qdrant_server.spoil = spoil
    slowly = place.with_keys(feed={"batch_points": 20, "at_once": 2, "patience": 20.0})
    report = slowly.fill(snapshot)
    assert [one.id for one in report.rejected] == ["doc-77"]
    assert "400" in report.rejected[0].message
    assert "doc-77" in report.rejected[0].message
    assert (report.points, place.store.count("docs_1")) == (119, 119)
    assert len(tries) > 12
    qdrant_server.spoil = lambda method, path, body: None
    assert place.fill(snapshot).written == 1
    assert place.store.count("docs_1") == 120


def test_a_request_that_is_too_large_is_halved_until_it_is_not(
    place: Place, corpus: Corpus, qdrant_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.index.qdrant_server._MOST", 20_000)
    corpus.add(names(100))
    report = place.fill(corpus.commit())
    assert (report.points, report.rejected) == (100, ())
    assert len(_written(qdrant_server)[0]) == 100
    assert min(map(len, _written(qdrant_server))) < 25


@pytest.mark.parametrize(
    ("column", "wrong", "told"),
    [
        ("embedding", [float("nan")] * 16, "a number of a vector is not finite"),
        ("multivector", [np.full(8, np.inf, np.float16)], "a number of a vector is not finite"),
        ("multivector", [], "a multi-vector has no vectors"),
        ("weight", float("inf"), "a number of 'weight' is not finite"),
    ],
)
def test_what_json_does_not_have_is_refused_before_it_is_sent(
    place: Place, corpus: Corpus, qdrant_server: Server, column: str, wrong: Any, told: str
) -> None:
    corpus.add(["good", "also good"])
    corpus.add(["wrong"], **{column: wrong})
    report = place.with_keys(feed={"rejected_share": 0.5}).fill(corpus.commit())
    assert [(one.id, one.message) for one in report.rejected] == [("wrong", told)]
    assert sorted(id for ids in _written(qdrant_server) for id in ids) == ["also good", "good"]


@pytest.mark.parametrize(("too_long", "points"), [("pool", 3), ("split", 4)])
def test_documents_of_more_vectors_than_a_point_holds_are_pooled_or_split_and_told(
    place: Place, corpus: Corpus, qdrant_server: Server, too_long: str, points: int
) -> None:
    most = 1_048_576 // 8
    vectors = np.zeros((most + 1000, 8), np.float16)
    vectors[np.arange(len(vectors)), np.arange(len(vectors)) % 8] = 1
    corpus.add(["a", "b"])
    corpus.add(["long"], multivector=list(vectors))
    snapshot = corpus.commit()
    place = place.with_keys(too_long=too_long, vectors=["multi"])
    report = place.fill(snapshot)
    assert (report.points, report.shortened, report.rejected) == (points, 1, ())
    sent = [
        len(point["vector"]["multi"])
        for method, path, body in qdrant_server.requests
        if _is_write(method, path)
        for point in body["points"]
        if point["payload"]["id"] == "long"
    ]
    assert sorted(sent) == ([(most + 1000) // 2] if too_long == "pool" else [1000, most])


def test_points_without_one_of_their_vectors_come_back_so(store: Qdrant) -> None:
    layout = _layout(multi=VectorType(size=2, dtype="float16"))
    store.create("docs_1", layout, "owner")
    rows: list[dict[str, Any]] = [
        {MULTI: [[1.0, 0.0], [0.0, 1.0]], SINGLE: None},
        {MULTI: None},
        {MULTI: [[0.0, 1.0]]},
    ]
    rows[0][MULTI] = [np.array(one, np.float16) for one in rows[0][MULTI]]
    rows[2][MULTI] = [np.array(one, np.float16) for one in rows[2][MULTI]]
    table = _points(layout, rows)
    store.load("docs_1", table)
    found = store.fetch("docs_1", layout, table[POINT].to_pylist())
    assert found.sort_by("id").equals(table)
    assert store.fetch("docs_1", layout, [uuid.UUID(int=9).bytes]).num_rows == 0


def test_a_scan_of_many_pages_names_every_point_once(
    store: Qdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant, "_SCANNED", 7)
    layout = _layout()
    store.create("docs_1", layout, "owner")
    assert list(store.scan("docs_1")) == []
    table = _points(layout, [{STAMP: at - 2**63} for at in range(21)])
    store.load("docs_1", table)
    found = pa.concat_tables(store.scan("docs_1"))
    assert found.sort_by(POINT).equals(table.select([POINT, STAMP]).cast(found.schema))


def test_the_alias_is_changed_by_one_request(
    place: Place, corpus: Corpus, qdrant_server: Server
) -> None:
    snapshot = _filled(place, corpus)
    place.fill(snapshot, beside=True)
    changes = [
        [next(iter(action)) for action in body["actions"]]
        for _, path, body in qdrant_server.requests
        if path == "/collections/aliases"
    ]
    assert changes == [["create_alias"], ["delete_alias", "create_alias"]]


def test_only_a_first_load_is_without_a_condition(
    place: Place, corpus: Corpus, qdrant_server: Server
) -> None:
    _filled(place, corpus)
    corpus.add(["more"])
    place.fill(corpus.commit())
    conditions = [
        body.get("update_filter")
        for method, path, body in qdrant_server.requests
        if _is_write(method, path)
    ]
    assert conditions[0] is None
    (condition,) = conditions[1]["must"]
    assert condition["key"] == RUN
    assert list(condition["range"]) == ["lte"]


def test_nothing_is_indexed_for_nearest_vectors_unless_that_is_asked_for(
    place: Place, corpus: Corpus, qdrant_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant, "_LOOKS", 0.01)
    snapshot = _filled(place, corpus)
    assert {one["hnsw_config"]["m"] for one in qdrant_server.shards["docs_1"].params.values()} == {
        0
    }
    approximate = place.with_keys(vector_index=True)
    looks: list[str] = []

    def growing(method: str, path: str, body: Any) -> Answer | None:
        if (method, path) != ("GET", "/collections/docs_3"):
            return None
        with qdrant_server.lock:
            info = qdrant_server.answer(method, path, body)
        looks.append("grey" if len(looks) == 3 else "yellow" if len(looks) < 6 else "green")
        return 200, {}, {"result": info | {"status": looks[-1]}, "time": 0.0}

    qdrant_server.spoil = growing
    approximate.fill(snapshot, beside=True)
    params = qdrant_server.shards["docs_3"].params
    assert (params["single"]["hnsw_config"], params["multi"]["hnsw_config"]) == (
        {"m": 16},
        {"m": 0},
    )
    assert looks[-1] == "green"
    question = Question(using=SINGLE, vectors=corpus.living()[0]["embedding"][None], most=1)
    for of, name in ((place, "docs_1"), (approximate, "docs_3")):
        of.store.search(name, of.layout(snapshot), question)
        _, _, body = qdrant_server.requests[-1]
        assert body.get("params") == ({"exact": True} if name == "docs_1" else None)


def test_an_index_that_cannot_be_built_fails_the_backfill(
    place: Place, corpus: Corpus, qdrant_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant, "_LOOKS", 0.01)
    corpus.add(names(5))

    def red(method: str, path: str, body: Any) -> Answer | None:
        if (method, path) != ("GET", "/collections/docs_1"):
            return None
        with qdrant_server.lock:
            info = qdrant_server.answer(method, path, body)
        failed = {"status": "red", "optimizer_status": {"error": "no space left"}}
        return 200, {}, {"result": info | failed, "time": 0.0}

    qdrant_server.spoil = red
    with pytest.raises(StoreFailed, match=r"cannot index collection 'docs_1': .*no space left"):
        place.with_keys(vector_index=True).fill(corpus.commit())


def test_indexes_that_a_creation_did_not_come_to_are_made_later(
    place: Place, corpus: Corpus, qdrant_server: Server
) -> None:
    corpus.add(names(5))
    snapshot = corpus.commit()
    layout = place.layout(snapshot)
    qdrant_server.spoil = lambda method, path, body: (
        (503, {}, _TOLD) if path.endswith("/index") else None
    )
    store = Qdrant(qdrant_server.url, None)
    with pytest.raises(Busy):
        store.create("docs_1", layout, snapshot.dataset)
    qdrant_server.spoil = lambda method, path, body: None
    assert store.owner("docs_1") == snapshot.dataset
    store.settle("docs_1", layout)
    store.close()
    assert qdrant_server.shards["docs_1"].indexes.keys() == {"title", "year", "nightjar_run"}


def test_a_collection_that_is_not_ours_is_left_alone(
    place: Place, corpus: Corpus, qdrant_server: Server
) -> None:
    config = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client = QdrantClient(url=qdrant_server.url, check_compatibility=False)
    client.create_collection("docs_1", vectors_config={"": config})
    with pytest.raises(CollectionError, match="'docs_1' is a collection that Nightjar has not"):
        place.store.owner("docs_1")
    client.create_collection("docs", vectors_config={"": config})
    corpus.add(names(5))
    with pytest.raises(CollectionError, match="Nightjar has not made"):
        place.fill(corpus.commit())
    with pytest.raises(CollectionError, match="'docs' is a collection that Nightjar has not made"):
        place.store.lead("docs", "docs_1")
    assert {"docs", "docs_1"} <= qdrant_server.shards.keys()
    client.close()


def test_a_collection_whose_vectors_are_compared_otherwise_does_not_fit(
    place: Place, corpus: Corpus, qdrant_server: Server
) -> None:
    snapshot = _filled(place, corpus)
    qdrant_server.shards["docs_1"].params["single"]["distance"] = "Euclid"
    with pytest.raises(CollectionError, match="single is 16 numbers of float32, Euclid, not"):
        place.store.demand_fit("docs_1", place.layout(snapshot))


def test_columns_of_another_type_do_not_fit(store: Qdrant) -> None:
    store.create("docs_1", _layout(payload=(("id", TEXT), ("seen", TEXT))), "owner")
    with pytest.raises(CollectionError, match="seen is text, not time"):
        store.demand_fit("docs_1", _layout(payload=(("id", TEXT), ("seen", TIME))))


def test_a_collection_made_by_another_meanwhile_is_told(
    place: Place, corpus: Corpus, qdrant_server: Server
) -> None:
    snapshot = _filled(place, corpus)
    # it was not there when it was looked for
    nothing = (200, {}, {"result": {"collections": []}, "time": 0.0})
    qdrant_server.spoil = lambda method, path, body: nothing if path == "/collections" else None
    with pytest.raises(CollectionError, match="already exists"):
        place.store.create("docs_1", place.layout(snapshot), "owner")


def _spec(url: str, **keys: Any) -> VectorStoreSpec:
    return VectorStoreSpec(kind="qdrant", url=url, collection="docs", **keys)


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with (
        pytest.raises(StoreFailed, match=r"store\.url: 'http://127\.0\.0\.1:1' cannot be used"),
        connected(_spec("http://127.0.0.1:1")),
    ):
        pass
    with (
        pytest.raises(SpecError, match=r"store\.url: 'ftp://x' is no URL"),
        connected(_spec("ftp://x")),
    ):
        pass


def test_a_server_that_would_ignore_conditions_is_refused(tmp_path: Path) -> None:
    with (
        Server(tmp_path, version="1.15.5") as old,
        pytest.raises(StoreFailed, match=r"Qdrant 1\.15\.5 at .*; 1\.16 or later is needed"),
        connected(_spec(old.url)),
    ):
        pass


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_the_key_is_the_secret_of_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_TEST_KEY", "qdr4nt-k3y")
    with Server(tmp_path, key="qdr4nt-k3y") as server:
        with connected(_spec(server.url, secret="env:QDRANT_TEST_KEY")) as store:
            assert store.owner("docs_1") is None
        with (
            pytest.raises(StoreFailed, match=r"store\.secret: Qdrant does not let us in: 401"),
            connected(_spec(server.url)),
        ):
            pass


def test_a_directory_keeps_what_was_written(tmp_path: Path, corpus: Corpus) -> None:
    corpus.add(names(20))
    snapshot = corpus.commit()
    spec = _spec(str(tmp_path / "engine"), vectors=["single", "multi"], index=["year"])
    for how in ("new collection", "up to date"):
        with connected(spec) as store:
            place = Place(spec, store)
            assert place.fill(snapshot).how == how
    corpus.add(names(5, "more"))
    with connected(spec) as store, connected(spec) as other:
        assert Place(spec, store).fill(corpus.commit(), other).how == "difference"
        assert (store.count("docs_1"), store.live("docs")) == (25, "docs_1")


# the client leaves the file open that it could not lock
@pytest.mark.filterwarnings(
    "ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_directory_is_of_one_process(tmp_path: Path) -> None:
    held = QdrantClient(path=str(tmp_path / "engine"))
    with (
        pytest.raises(StoreFailed, match="is in use by another process"),
        connected(_spec(str(tmp_path / "engine"))),
    ):
        pass
    held.close()


def test_threads_do_not_meet_in_the_engine_of_the_client() -> None:
    layout = _layout()
    tables = [
        _points(layout, [{POINT: uuid.uuid4().bytes, SINGLE: np.eye(4)[at % 4]} for at in range(4)])
        for _ in range(60)
    ]
    store = Qdrant(":memory:", None)
    store.create("docs_1", layout, "owner")
    question = Question(using=SINGLE, vectors=np.eye(1, 4, dtype=np.float32), most=1)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            writes = [threads.submit(store.load, "docs_1", table) for table in tables]
            reads = [threads.submit(store.search, "docs_1", layout, question) for _ in range(60)]
            for done in [*writes, *reads]:
                done.result()
    finally:
        sys.setswitchinterval(before)
    wanted = pa.concat_tables(tables)
    found = store.fetch("docs_1", layout, wanted[POINT].to_pylist())
    assert found.sort_by(POINT).equals(wanted.sort_by(POINT))
    store.close()


def test_what_is_in_memory_is_shared_and_goes_with_the_last_connection() -> None:
    with connected(_spec(":memory:")) as first:
        with connected(_spec(":memory:")) as second:
            second.create("docs_1", _layout(), "owner")
        assert first.owner("docs_1") == "owner"
    with connected(_spec(":memory:")) as third:
        assert third.owner("docs_1") is None


def test_a_server_without_its_scheme_is_no_directory() -> None:
    with (
        pytest.raises(SpecError, match="a server is 'http://localhost:6333'"),
        connected(_spec("localhost:6333")),
    ):
        pass
